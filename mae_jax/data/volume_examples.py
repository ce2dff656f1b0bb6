"""Volumes that `mae-jax prepare` packs: cropped, windowed, resampled, and cut into bricks.

A volume is read, resampled and written a slab at a time, so memory holds a few slabs of an
uncompressed volume of any size. Each thread writes a file.
"""

import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.data.images import BadImage
from mae_jax.data.lazy import Part
from mae_jax.data.resampling import Resampled
from mae_jax.data.shards import ORIGIN, UNFINISHED, VERSION
from mae_jax.data.sources.volume import Volumes
from mae_jax.data.statistics import Tally, write_reports
from mae_jax.data.volume_crops import foreground_box
from mae_jax.data.volume_grids import prepared_geometry
from mae_jax.data.volume_shards import PreparedVolume, VolumeShard
from mae_jax.types import UserError

INDEX = "volumes.json"
"""File of a prepared set with its classes, and the volumes of each file of records."""
MEDIAN = "median"

Spacing = float | Sequence[float] | str | None


class VolumeExamples:
    """The volumes of a source `volume`.

    Args:
        text: spec string of the source.
        source: the source.
        channels: None, or the channels that its volumes have.
        spacing: see `prepare`.
        crop_background: see `prepare`.
    """

    noun, reader = "volumes", "volume_records"

    def __init__(
        self,
        text: str,
        source: Volumes,
        *,
        channels: int | None,
        spacing: Spacing,
        crop_background: bool,
    ):
        self.source, self._crop = source, crop_background
        self.channels, geometries = self._headers(text, channels)
        self.spacing = _spacing_of(spacing, geometries)
        whole = [
            g and prepared_geometry(g, tuple(slice(0, n) for n in g.space), self.spacing)
            for g in geometries.values()
        ]
        bytes_of = self.channels * source.dtype.itemsize
        self.sizes = np.array([g is not None and np.prod(g.grid) * bytes_of for g in whole], int)
        self.origin = {
            "source": text,
            "images": source.num_examples,
            "listing": source.digest,
            "spacing": list(self.spacing) if self.spacing else None,
            "crop_background": crop_background,
        }

    def __iter__(self):
        return iter(range(self.source.num_examples))

    def _headers(self, text: str, channels: int | None) -> tuple[int, dict[str, Any]]:
        """Channels of the first volume, and name -> geometry of all; None if it is damaged."""
        found, first, why = {}, None, ""
        for index in self:
            name = self.source.name(index)
            try:
                volume = self.source.volume(index)
                first = volume.channels if first is None else first
                found[name] = volume.geometry
            except BadImage as error:
                why, found[name] = why or f"{name}: {error}", None
        if first is None:
            raise UserError(f"no volume of {text} can be read; the first is {why}")
        if channels not in (None, first):
            raise UserError(
                f"channels {channels}: volumes of {text} have {first}; leave --channels out"
            )
        return first, found

    def shard(self, path: Path, rows: np.ndarray, threads: int, advance) -> VolumeShard:
        """A shard of the volumes in `rows` [n]; see `VolumeShard`."""
        return VolumeShard(
            path=path,
            rows=rows,
            source=self.source,
            open=self.open,
            channels=self.channels,
            threads=threads,
            advance=advance,
        )

    def open(self, index: int) -> PreparedVolume:
        """A volume that is cropped and resampled when it is read.

        Raises:
            BadImage: it cannot be opened, or has another number of channels.
        """
        row = {name: values[0] for name, values in self.source.read(np.array([index])).items()}
        image, labels = row["image"], row.get("segmentation")
        if image.shape[3] != self.channels:
            raise BadImage(f"it has {image.shape[3]} channels, and the set {self.channels}")
        box = tuple(slice(0, side) for side in image.shape[:3])
        box = foreground_box(image, labels) if self._crop else box
        geometry = prepared_geometry(image.volume.geometry, box, self.spacing)
        exact = image.exact() if geometry.resampled else image
        resampled = Resampled(Part(exact, box), geometry.taps(labels=False), self.source.dtype)
        if labels is not None:
            labels = Resampled(Part(labels, box), geometry.taps(labels=True))
        header = {"shape": resampled.shape, "geometry": geometry.to_json()}
        return PreparedVolume(resampled, labels, header, int(row.get("label", -1)))

    def write(
        self, name: str, out: Path, shards: Mapping[str, Sequence[VolumeShard]], beam: str | None
    ) -> None:
        """Writes the shards, and assembles the set OUT/NAME/1.0.0.

        Raises:
            UserError: no volume of a split is readable.
            OSError: a file cannot be written.
        """
        every, stop = [one for parts in shards.values() for one in parts], threading.Event()
        with ThreadPoolExecutor(every[0].threads) as pool:
            pending = [pool.submit(shard.write, stop) for shard in every]
            try:
                done = wait(pending, return_when=FIRST_EXCEPTION).done
            finally:  # ends the other files after an error or an interrupt
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
        for future in done:
            future.result()
        self._assemble(out / name, shards)

    def _assemble(self, root: Path, shards: Mapping[str, Sequence[VolumeShard]]) -> None:
        # Folders of this name are moved back if this is interrupted, see `prepare`.
        folder = root / f"incomplete.volumes_{VERSION}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        counts = {split: [part.counts_of() for part in parts] for split, parts in shards.items()}
        tallies = {
            split: [Tally.from_json(one["tally"]) for one in found]
            for split, found in counts.items()
        }
        write_reports(folder, tallies, self.source.class_names, "volume")
        splits = {
            split: [
                {"file": part.path.name, "records": one["records"], "volumes": one["volumes"]}
                for part, one in zip(shards[split], found, strict=True)
            ]
            for split, found in counts.items()
        }
        index = {
            "classes": list(self.source.class_names),
            "dtype": self.source.dtype.name,
            "segmentation": self.source.masks is not None,
            "splits": splits,
        }
        (folder / INDEX).write_text(json.dumps(index) + "\n", encoding="utf-8")
        for part in (part for parts in shards.values() for part in parts):
            os.replace(part.path, folder / part.path.name)
        shutil.copy(root / UNFINISHED / ORIGIN, folder)
        os.replace(folder, root / VERSION)


def _spacing_of(spacing: Spacing, geometries: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Checks the option, and finds the median; see `prepare`."""
    if spacing is None:
        return None
    unknown = [name for name, one in geometries.items() if one is not None and not one.measured]
    if unknown:
        raise UserError(
            f"spacing {spacing}: {unknown[0]} has no spacing ({len(unknown)} of "
            f"{len(geometries)} volumes): leave --spacing out, or save them with one, as NIfTI"
        )
    if spacing == MEDIAN:
        found = [one.spacing for one in geometries.values() if one is not None]
        return tuple(float(f"{side:.6g}") for side in np.median(found, 0))
    sides = (spacing,) * 3 if isinstance(spacing, (int, float)) else spacing
    numbers = isinstance(sides, Sequence) and all(type(one) in (int, float) for one in sides)
    if not numbers or len(sides) != 3 or not all(0 <= one < np.inf for one in sides):
        raise UserError(
            f"spacing {spacing!r} should be mm along depth, height and width, such as 3,1,1 (0 "
            f"keeps that of each volume), one number, or {MEDIAN}"
        )
    return tuple(map(float, sides))
