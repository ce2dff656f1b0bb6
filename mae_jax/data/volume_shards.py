"""Shards of volumes that are being prepared: one file of records each, written a slab at a time."""

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.data.bricks import bricks, encode_labels, slabs
from mae_jax.data.images import BadImage
from mae_jax.data.resampling import Resampled
from mae_jax.data.shards import TEMPORARY, Writer
from mae_jax.data.sources.volume import Volumes
from mae_jax.data.statistics import Tally


@dataclasses.dataclass(frozen=True)
class PreparedVolume:
    """A volume as it is written: the parts are read when they are."""

    image: Resampled
    labels: Resampled | None
    header: dict[str, Any]
    label: int

    def records(self, values: np.ndarray) -> Iterator[bytes]:
        """The header, the bricks of the image, and those of the labels.

        Args:
            values: [C, 256] int64, to which the histograms of the levels are added.

        Raises:
            BadImage: it cannot be read.
        """
        yield json.dumps(self.header).encode()
        for rows in slabs(self.image.shape[0]):
            for brick in bricks(self.image[(rows,)]):  # [d, h, w, C]
                levels = np.rint(brick).astype(np.uint8)
                for channel, counts in enumerate(values):
                    counts += np.bincount(levels[..., channel].ravel(), minlength=256)
                yield brick.tobytes()
        for rows in slabs(self.image.shape[0]) if self.labels is not None else ():
            yield from map(encode_labels, bricks(self.labels[(rows,)]))


@dataclasses.dataclass(kw_only=True)
class VolumeShard:
    """Some volumes of a set, in one file of records; finished once the file exists.

    Args:
        path: path of the file.
        rows: [n] indices of the volumes.
        source: all volumes.
        open: opens one of them, or raises BadImage.
        channels: of every volume.
        threads: number of files that are written at a time.
        advance: called with the number of volumes just processed.
    """

    path: Path
    rows: np.ndarray
    source: Volumes
    open: Callable[[int], PreparedVolume]
    channels: int
    threads: int
    advance: Callable[[int], None]

    @property
    def counts(self) -> Path:
        """Path of the file with the volumes and counts of the finished shard."""
        return self.path.with_name(f"{self.path.name}.json")

    def counts_of(self) -> dict[str, Any]:
        """The content of `counts`: 'tally', number of 'records', and 'volumes', a list of [name,
        group, label, number of the first record].
        """
        return json.loads(self.counts.read_text(encoding="utf-8"))

    def write(self, stop: threading.Event) -> None:
        """Writes the file, unless it exists.

        Args:
            stop: ends the work when it is set, and leaves no file.

        Raises:
            OSError: the file cannot be written.
        """
        if self.path.exists():
            self.advance(len(self.rows))
            return
        Writer().write(self.path, ((0, record) for record in self._records(stop)))

    def _records(self, stop: threading.Event) -> Iterator[bytes]:
        source, count, volumes = self.source, 0, []
        tally = Tally(self.channels)
        for index in map(int, self.rows):
            name, first, size = source.name(index), count, 0
            values = np.zeros_like(tally.values)
            try:
                volume = self.open(index)
                for record in volume.records(values):
                    if stop.is_set():
                        raise InterruptedError("another file could not be written")
                    count, size = count + 1, size + len(record)
                    yield record
                depth, *plane = volume.image.shape[:3]
                tally.add(size, plane, values, volume.label, depth)
                volumes.append([name, source.group(index), volume.label, first])
            except BadImage as error:
                tally.unreadable[name] = str(error)
            self.advance(1)
        content = {"tally": tally.to_json(), "records": count, "volumes": volumes}
        temporary = self.counts.with_suffix(TEMPORARY)
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, self.counts)
