"""A folder of volumes: NIfTI, MGH, DICOM series, stacks of TIFF pages, and .npy."""

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mae_jax.data import volume_files
from mae_jax.data.files import Files, class_labels, class_of, existing, find, number
from mae_jax.data.images import BadImage, Window
from mae_jax.data.names import printable
from mae_jax.data.slices import no_window, reason
from mae_jax.data.sources import Source
from mae_jax.data.volume_entries import Entry, Listing, with_masks
from mae_jax.data.volume_geometry import VolumeGeometry
from mae_jax.data.volume_windows import DTYPES, Percentiles, percentiles, window_of
from mae_jax.data.volumes import Volume, VolumeImage, VolumeLabels
from mae_jax.spec import check_choice
from mae_jax.types import UserError

logger = logging.getLogger(__name__)


class Volumes(Source):
    """Volumes of a folder, see `make`. Memory holds an entry for each volume and for each slice of
    DICOM series. Files are open while a volume is read.

    Args:
        files: the files of the folder.
        entries: the volumes, sorted by name.
        window: see `make`.
        dtype: uint8 or float16.
        masks: folder of label volumes, if there is one.
        notes: lines about the files.
    """

    flat = False
    """Whether images are [H, W, C]."""

    def __init__(
        self,
        files: Files,
        entries: Sequence[Entry],
        *,
        window: Window | Percentiles | None,
        dtype: str,
        masks: Path | None,
        notes: Sequence[str],
    ):
        self.entries, self.dtype, self.masks = entries, np.dtype(dtype), masks
        self._given, self._windows, self._missing = window, {}, set()
        self.num_examples = len(entries)
        self._labels = class_labels(entry.name for entry in entries if not entry.damage)
        classes = tuple(self._labels)
        self.names = {"label": classes} if classes else {}
        self.empty_classes = tuple(name for name in files.class_names if name not in classes)
        listing = "\n".join([files.digest, *(entry.name for entry in entries)])
        self.digest = hashlib.sha256(listing.encode()).hexdigest()[:16]
        self.damaged = [f"{printable(e.name)}: {e.damage}" for e in entries if e.damage]
        damaged = f"cannot read {len(self.damaged)}, e.g. {self.damaged[0]}" if self.damaged else ""
        kept = (note for note in files.notes if not (classes and note in files.no_classes))
        self.notes = (*kept, *notes, *([damaged] if damaged else []))

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' [D, H, W, C] that is read when it is cropped, 'label' if there are classes, and
        'segmentation' [D, H, W] of class numbers if there are masks.

        Raises:
            BadImage: a volume cannot be opened.
        """
        opened = [self.volume(index) for index in indices]
        fields = {"image": [self._image(int(i), one) for i, one in zip(indices, opened)]}
        if self.class_names:
            names = (self.entries[index].name for index in indices)
            fields["label"] = [self._labels[class_of(name)] for name in names]
        if self.masks is not None:
            fields["segmentation"] = [self._mask(int(i), one) for i, one in zip(indices, opened)]
        return fields

    def volume(self, index: int) -> Volume:
        """Opens a volume: its header, and its values in the units of the file.

        Raises:
            BadImage: it cannot be opened.
        """
        entry = self.entries[index]
        if entry.open is None:
            raise BadImage(entry.damage)
        return _guarded(entry.open)

    def geometry(self, index: int) -> VolumeGeometry:
        """Affine, spacing, shape and orientation of a volume, for `volume_geometry.to_original`.

        Raises:
            BadImage: it cannot be opened.
        """
        return self.volume(index).geometry

    def window(self, index: int) -> Window | None:
        """The values of a volume that become 0 and 255; None if it is read unchanged.

        Raises:
            BadImage: it cannot be read, or percentiles do not make a window.
        """
        return self._window(index, self.volume(index))

    def labels(self) -> np.ndarray | None:
        """[N] int32, from the names of the volumes, -1 for damaged ones; None without classes."""
        if not self.class_names:
            return None
        label_of = lambda entry: -1 if entry.damage else self._labels[class_of(entry.name)]
        return np.fromiter(map(label_of, self.entries), np.int32, len(self.entries))

    def name(self, index: int) -> str:
        """'patient1/scan.nii.gz'; of a DICOM series its first file, 'patient1/0001.dcm'."""
        return self.entries[index].name

    def group(self, index: int) -> str:
        """The series, of which a volume may be one echo or one time."""
        return self.entries[index].group or self.name(index)

    def groups(self) -> np.ndarray | None:
        """[N] int32, the series of each volume; None if each is its own."""
        names = [self.group(index) for index in range(self.num_examples)]
        numbers = np.unique(names, return_inverse=True)[1].astype(np.int32)
        return numbers if numbers.max(initial=0) + 1 < len(names) else None

    def _image(self, index: int, volume: Volume) -> VolumeImage:
        window = functools.partial(self._window, index, volume)
        report = functools.partial(self._report, index)
        return VolumeImage(volume, window, self.dtype, report)

    def _window(self, index: int, volume: Volume) -> Window | None:
        if not isinstance(self._given, Percentiles):
            return self._given
        if index not in self._windows:
            self._windows[index] = percentiles(volume.sample(), self._given)
        return self._windows[index]

    def _report(self, index: int, count: int) -> None:
        """Counts a volume with NaN, once."""
        if index not in self._missing:
            self._missing.add(index)
            logger.warning(
                "%s holds NaN (%s here), read as the lower end of the window; %s so far",
                printable(self.name(index)),
                number(count, "voxel"),
                number(len(self._missing), "such volume"),
            )

    def _mask(self, index: int, volume: Volume) -> VolumeLabels:
        path = self.masks / self.name(index)
        if not path.exists():
            raise BadImage(f"its mask {path} is missing")
        return VolumeLabels(_guarded(lambda: volume_files.open_file(path)), volume)


def _guarded(open: Callable[[], Volume]) -> Volume:
    """Opens a volume; raises BadImage for any error."""
    try:
        return open()
    except BadImage:
        raise
    except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
        raise BadImage(reason(error)) from error


def make(
    path: str,
    *,
    window: tuple[float, float] | str | None = None,
    dtype: str = "uint8",
    masks: str = "",
) -> Volumes:
    """The volumes below a folder, folder by folder, sorted by name: images [D, H, W, C].

    Reads .nii, .nii.gz, pairs of .hdr and .img, .mgh and .mgz, DICOM, TIFF stacks and .npy. If all
    volumes are in sub-folders, the direct sub-folders are the classes, in the order of their names.

    Volumes with a position in space are turned to RAS+ as by nibabel's `as_closest_canonical`, and
    not resampled: depth is z, upward; height is y, to the front; width is x, to the right. Values
    are scaled by the header. A fourth axis of NIfTI, or colors, are the channels.

    A DICOM volume is made of the slices of one series, orientation and size, sorted by their
    positions along their normal, whatever the names of files and InstanceNumber are. Slices at the
    same position are told apart by echo time, b-value, time, stack, type or acquisition. Volumes
    with slices that are missing, at the same position or shifted (gantry tilt) count as damaged.
    Localizers, single slices and copies of slices are left out and counted.

    Stacks of TIFF pages and .npy have no position, and are read as stored: [pages, rows, columns].

    A volume is read when it is cropped, and only the part that is needed: of uncompressed files
    from the disk; of a .nii.gz the file is decompressed in memory, once for all crops of it.

    Args:
        path: the folder.
        window: (low, high), the values that become 0 and 255, in the units of the file (CT:
            Hounsfield); or 'percentiles(0.5, 99.5)', those of the foreground of each volume, see
            `volume_windows.percentiles`. Required except for uint8. NaN becomes 0.
        dtype: 'uint8', or 'float16', which keeps levels from 0 to 255 between whole numbers.
        masks: a folder with a volume of class numbers for each volume, under the same name: the
            field 'segmentation' [D, H, W]. Volumes without one count as damaged. Not for DICOM.

    Raises:
        UserError: a package or the folder is missing, the folder has no volume that can be read,
            none has a mask, values need a window, or an option is invalid.
    """
    given = window_of(window)
    check_choice("volume: dtype", dtype, DTYPES)
    if dtype != "uint8" and given is None:
        raise UserError(f"volume: dtype={dtype!r} needs a window: the values that become 0 and 255")
    if masks and existing("volume", masks).resolve().is_relative_to(Path(path).resolve()):
        raise UserError(f"volume: masks {masks!r} is inside {path!r}: move it beside it")
    files = find("volume", path, volume_files.is_volume, volume_files.LOOKED_FOR)
    listing = Listing(files)
    entries = with_masks(listing.entries, existing("volume", masks)) if masks else listing.entries
    if given is None:
        _check_bytes(entries)
    return Volumes(
        files,
        entries,
        window=given,
        dtype=dtype,
        masks=existing("volume", masks) if masks else None,
        notes=listing.notes,
    )


def _check_bytes(entries: Sequence[Entry]) -> None:
    """Raises UserError if a volume needs a window."""
    for entry in entries:
        if entry.open is None:
            continue
        try:
            volume = entry.open()
            middle = volume.geometry.space[0] // 2
            values = volume.values((slice(middle, middle + 1),))
        except Exception:  # reading it in training reports the error
            continue
        if values.dtype != np.uint8:
            raise no_window(f"slice {middle} of {entry.name}", values)
