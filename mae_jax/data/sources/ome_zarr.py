"""A folder of OME-Zarr images, such as microscopy: volumes or planes, read chunk by chunk."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mae_jax.data.channel_windows import Windows, check_windows
from mae_jax.data.files import existing
from mae_jax.data.images import BadImage
from mae_jax.data.lazy import Lazy
from mae_jax.data.slices import no_window, reason, require
from mae_jax.data.sources.volume import Volumes
from mae_jax.data.volume_entries import Entry
from mae_jax.data.volume_geometry import STACK, VolumeGeometry
from mae_jax.data.volume_windows import DTYPES, Percentiles, percentiles, window_of
from mae_jax.data.volumes import Volume, VolumeLabels
from mae_jax.data.zarr_files import ZarrImage, attributes_of, find_images, open_image
from mae_jax.spec import check_choice
from mae_jax.types import UserError

OMERO = "omero"
"""The window that the metadata of an image hold."""

Channels = tuple[str | int, ...]


class Place(NamedTuple):
    """Where an example is."""

    folder: Path
    time: int


class OmeZarr(Volumes):
    """Images of a folder, see `make`. Memory holds an entry for each example."""

    def __init__(
        self,
        root: Path,
        *,
        level: int,
        channels: Channels,
        window: Windows | Percentiles | str,
        dtype: str,
        labels: str,
    ):
        self.level, self.channels, self._label_group = level, channels, labels
        self._places: list[Place | None] = []
        entries, depths = [], []
        for name, damage in find_images(root):
            folder, name = root / name, root.resolve().name if name == "." else name
            try:
                if damage:
                    raise BadImage(damage)
                image = open_image(folder, level)
                self._chosen(image)
                self._check_labels(folder)
                count = image.sides("t")[0]
            except Exception as error:  # tensorstore raises errors of several kinds
                entries.append(Entry(name=name, damage=reason(error)))
                self._places.append(None)
                continue
            depths.append(image.sides("z")[0])
            for time in range(count):
                text = f"{name}[{time}]" if count > 1 else name
                opened = functools.partial(self._open, folder, time)
                entries.append(Entry(name=text, group=name, open=opened))
                self._places.append(Place(folder, time))
        self.flat = bool(depths) and max(depths) == 1
        _check_any(root, entries)
        super().__init__(
            _Listed(entries),
            entries,
            window=window,
            dtype=dtype,
            masks=root if labels else None,
            notes=(),
        )
        if any(attributes_of(root / name) is not None for name in self.class_names):
            self.names, self._labels = {}, {}  # the sub-folders are plates or series

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' [D, H, W, C], or [H, W, C] if no image has a depth, read when it is cropped;
        'label' if there are classes, 'segmentation' [D, H, W] or [H, W] if there are labels.

        Raises:
            BadImage: an image cannot be opened.
        """
        fields = super().read(indices)
        if self.flat:
            for name in {"image", "segmentation"} & fields.keys():
                fields[name] = [Plane(value) for value in fields[name]]
        return fields

    def geometry(self, index: int) -> VolumeGeometry | None:
        """See `Volumes`; None for planes."""
        return None if self.flat else super().geometry(index)

    def _chosen(self, image: ZarrImage) -> list[int]:
        """Numbers of the channels to read."""
        count = image.sides("c")[0]
        if not self.channels:
            return list(range(count))
        known = dict(zip(image.channels, range(count)))
        numbers = [known.get(one, -1) if isinstance(one, str) else one for one in self.channels]
        for one, number in zip(self.channels, numbers, strict=True):
            if not 0 <= number < count:
                names = f", {', '.join(image.channels)}" if any(image.channels) else ""
                raise BadImage(f"it has no channel {one!r}: it has {count}, from 0 on{names}")
        return numbers

    def _check_labels(self, folder: Path) -> None:
        """Raises BadImage if an image lacks the labels that are read."""
        if self._label_group and not (folder / "labels" / self._label_group).is_dir():
            raise BadImage(f"it has no labels {self._label_group!r}")

    def _open(self, folder: Path, time: int) -> Volume:
        image = open_image(folder, self.level)
        return _volume(image, time, self._chosen(image))

    def _window(self, index: int, volume: Volume) -> Windows:
        """Percentiles are of each channel, in the smallest level."""
        if self._given != OMERO and not isinstance(self._given, Percentiles):
            return self._given
        if index not in self._windows:
            folder, time = self._places[index]
            image = open_image(folder, -1)
            chosen = self._chosen(image)
            if self._given != OMERO:
                values = _volume(image, time, chosen).sample()  # [D, H, W, C]
                found = [percentiles(values[..., [c]], self._given) for c in range(len(chosen))]
            elif len(image.windows) == image.sides("c")[0]:
                found = [image.windows[number] for number in chosen]
                check_windows("its metadata (omero)", found)
            else:
                raise BadImage("its metadata hold no window: give window=(low, high)")
            self._windows[index] = tuple(found)
        return self._windows[index]

    def _mask(self, index: int, volume: Volume) -> VolumeLabels:
        folder, time = self._places[index]
        self._check_labels(folder)
        path = folder / "labels" / self._label_group
        try:
            image = open_image(path, self.level)
        except BadImage as error:
            raise BadImage(f"its labels: {error}") from error
        except Exception as error:  # tensorstore raises errors of several kinds
            raise BadImage(f"its labels: {reason(error)}") from error
        times = image.sides("t")[0]
        return VolumeLabels(_volume(image, time if times > 1 else 0, [0]), volume)


def _volume(image: ZarrImage, time: int, channels: Sequence[int]) -> Volume:
    spacing = image.scale or None
    affine = STACK
    if spacing:  # mm along x, y and z
        affine = STACK @ np.diag([*(spacing.get(axis, 1.0) for axis in "zyx"), 1])
    return Volume(
        geometry=VolumeGeometry(affine=affine, shape=image.sides("zyx"), placed=False),
        channels=len(channels),
        read=functools.partial(image.read, time, channels),
    )


class Plane(Lazy):
    """The only plane of a volume.

    Args:
        base: [1, H, W, ...].
    """

    def __init__(self, base: Lazy):
        self.base, self.shape, self.dtype = base, base.shape[1:], base.dtype

    def __getitem__(self, part):
        """[h, w, ...]."""
        return self.base[(slice(None), *part)][0]


class _Listed:
    """What `Volumes` asks of `Files`, of folders."""

    class_names: Sequence[str] = ()
    no_classes: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __init__(self, entries: Sequence[Entry]):
        text = "\n".join(entry.name for entry in entries)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_any(root: Path, entries: Sequence[Entry]) -> None:
    """Raises UserError if no image can be read."""
    if not entries:
        raise UserError(
            f"ome_zarr: there is no image in {str(root)!r}: looked for folders with 'multiscales' "
            "in .zattrs or zarr.json"
        )
    if not any(entry.open for entry in entries):
        more = f" (nor can any of {len(entries)} images)" * (len(entries) > 1)
        raise UserError(f"cannot read {root / entries[0].name}{more}: {entries[0].damage}")


def make(
    path: str,
    *,
    level: int = 0,
    channels: Channels = (),
    window: Windows | str = None,
    dtype: str = "uint8",
    labels: str = "",
) -> OmeZarr:
    """The OME-Zarr images below a folder, sorted by name: [D, H, W, C], or [H, W, C] if no image
    has more than one plane.

    Reads versions 0.1 to 0.5, of axes t, c, z, y and x. Images inside plates and series are found.
    Each time is an example; those of one image are a group. If all images are in sub-folders, the
    direct sub-folders are the classes. A crop reads the chunks that it needs.

    Args:
        path: the folder, or one image.
        level: of resolution; 0 is the full one.
        channels: names (omero's labels) or numbers from 0 on, in the order to read; empty: all.
        window: (low, high), the values that become 0 and 255, or one such pair for each channel;
            'percentiles(0.5, 99.5)', those of the foreground of each channel of each image, in its
            smallest level; or 'omero', those that viewers show. Required except for uint8.
        dtype: 'uint8', or 'float16', which keeps levels from 0 to 255 between whole numbers.
        labels: name of the labels inside each image: the field 'segmentation'. Images without them
            count as damaged.

    Raises:
        UserError: the folder is missing or has no image that can be read, values need a window, or
            an option is invalid.
    """
    require("ome_zarr")
    given = window
    if window != OMERO:
        text = isinstance(window, str)
        given = window_of(window) if text else check_windows("ome_zarr", window)
    check_choice("ome_zarr: dtype", dtype, DTYPES)
    if dtype != "uint8" and given is None:
        raise UserError(f"ome_zarr: dtype={dtype!r} needs a window")
    if type(level) is not int or level < 0:
        raise UserError(f"ome_zarr: level {level!r} should be 0, 1, ...")
    if isinstance(channels, str) or not all(type(one) in (str, int) for one in channels):
        raise UserError(
            f"ome_zarr: channels={channels!r} should be names or numbers, such as ('DAPI',)"
        )
    root = existing("ome_zarr", path)
    source = OmeZarr(
        root,
        level=level,
        channels=tuple(channels),
        window=given,
        dtype=dtype,
        labels=labels,
    )
    for index, entry in enumerate(source.entries):
        if entry.open is not None:
            _check_first(source, index, given, entry.name)
            break
    return source


def _check_first(source: OmeZarr, index: int, window, name: str) -> None:
    """Raises UserError if the first image that can be opened needs a window, or another one."""
    try:
        volume = source.volume(index)
        values = volume.values((slice(0, 1), slice(0, 64), slice(0, 64)))
    except BadImage:  # reading it in training reports the error
        return
    if window is None and values.dtype != np.uint8:
        raise no_window(f"the corner of {name}", values)
    if window is not None and window != OMERO and not isinstance(window, Percentiles):
        check_windows("ome_zarr", window, volume.channels)
