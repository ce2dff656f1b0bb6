"""Lists the volumes in the files of a folder: one for each file or, of DICOM, for each series."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from mae_jax.data import dicom_codecs, volume_files
from mae_jax.data.dicom_series import Slice, geometry_of, grouped, open_series, slices_of
from mae_jax.data.files import Files, check_regular
from mae_jax.data.images import BadImage
from mae_jax.data.slices import NoImage, Remarks, reason, require
from mae_jax.data.volumes import Volume
from mae_jax.types import UserError

_CHUNK = 1000  # files with headers read ahead
UNPLACED = (
    "no orientation in the header (sform and qform are 0, or Analyze), read as stored with x to "
    "the left"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One volume of a folder."""

    name: str
    """Its file; of a DICOM series, the first one, with [k] if it holds several volumes."""
    group: str = ""
    """What volumes of one series, such as echoes, share."""
    open: Callable[[], Volume] | None = None
    """Reads headers; None if it is damaged."""
    damage: str = ""
    """Why it cannot be read."""


def with_masks(entries: Sequence[Entry], masks: Path) -> list[Entry]:
    """The entries, of which those without a mask of the same name are damaged.

    Args:
        masks: folder of the masks.

    Raises:
        UserError: no volume that can be read has one.
    """
    found = []
    for entry in entries:
        damage = entry.damage or _mask_damage(entry.name, masks)
        found.append(dataclasses.replace(entry, open=None, damage=damage) if damage else entry)
    if all(entry.damage for entry in found):
        name, damage = next((e.name, d.damage) for e, d in zip(entries, found) if not e.damage)
        raise UserError(
            f"volume: masks={str(masks)!r} has no mask that is read: {name}: {damage}; give a "
            "folder of masks with the names of their volumes, or leave masks out"
        )
    return found


def _mask_damage(name: str, masks: Path) -> str:
    """Why the mask of a volume cannot be read; '' if there is one."""
    if volume_files.kind_of(Path(name)) == "dicom":  # so would be its mask, by the same name
        return "its mask is DICOM: save the volume and its labels as NIfTI"
    path = masks / name
    return "" if path.is_file() else f"its mask {path} is missing"


class Listing:
    """The volumes of a folder.

    `entries` are in the order of their files. Files that hold no volume, localizers, single slices
    and copies of slices are left out, and counted in `notes`.

    Args:
        files: see `volume_files.is_volume`.

    Raises:
        UserError: a package is missing, or no volume can be read.
    """

    def __init__(self, files: Files):
        self.files = files
        self._left_out, self._remarks = Remarks(), Remarks()
        self._entries: list[tuple[int, Entry]] = []
        slices: list[Slice] = []
        for kind in {volume_files.kind_of(files.path(i)) for i in range(len(files))} - {"npy"}:
            require(kind)
            if kind == "dicom":
                dicom_codecs.register()
        with ThreadPoolExecutor(16) as pool:  # mostly waits for the disk
            for first in range(0, len(files), _CHUNK):
                chunk = range(first, min(first + _CHUNK, len(files)))
                for found in pool.map(self._inspect, chunk):
                    slices += found
        self._add_series(self._without_copies(slices))
        self.entries = [entry for _, entry in sorted(self._entries, key=lambda pair: pair[0])]
        self._check_any()
        left_out = self._left_out.counts()
        self.notes = (
            *([f"left out files without a volume: {left_out}"] if left_out else []),
            *self._remarks.lines(),
        )

    def _inspect(self, file: int) -> list[Slice]:
        """Adds an entry for a file, or returns its slices if it is DICOM."""
        path, name = self.files.path(file), self.files[file]
        try:
            check_regular(path)
            kind = volume_files.kind_of(path)
            if kind == "dicom":
                return slices_of(path, file)
            if not volume_files.open_file(path).geometry.placed and kind == "nifti":
                self._remarks.add(UNPLACED, name)
            self._entries.append((file, Entry(name=name, open=partial(self._open, file))))
        except NoImage as error:
            self._left_out.add(str(error), name)
        except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
            self._entries.append((file, Entry(name=name, damage=reason(error))))
        return []

    def _open(self, file: int) -> Volume:
        return volume_files.open_file(self.files.path(file))

    def _without_copies(self, slices: list[Slice]) -> list[Slice]:
        """The first of slices with the same SOPInstanceUID."""
        kept: dict[tuple[str, int], Slice] = {}
        for one in slices:
            if kept.setdefault((one.uid, one.frame), one) is not one:
                self._left_out.add("copy of a slice (SOPInstanceUID)", self.files[one.file])
        return list(kept.values())

    def _add_series(self, slices: list[Slice]) -> None:
        """Adds the volumes of DICOM series."""
        groups = []
        for group in grouped(slices):
            if len(group) > 1:
                groups.append(group)
            else:
                self._left_out.add("single slice of its series", self.files[group[0].file])
        count, used = Counter(group[0].file for group in groups), Counter()
        for group in groups:
            file = group[0].file
            name = self.files[file] + f"[{used[file]}]" * (count[file] > 1)
            used[file] += 1
            entry = Entry(name=name, group=group[0].series[0])
            try:
                geometry, ordered = geometry_of(group)
                volume = partial(open_series, self.files.path, ordered, geometry)
                entry = dataclasses.replace(entry, open=volume)
            except BadImage as error:
                entry = dataclasses.replace(entry, damage=str(error))
            self._entries.append((file, entry))

    def _check_any(self) -> None:
        """Raises UserError if no volume can be read."""
        if any(entry.open for entry in self.entries):
            return
        if not self.entries:
            raise UserError(
                f"there is no volume in {self.files.root}, only {self._left_out.counts()}: give a "
                "folder of volumes"
            )
        first = self.entries[0]
        several = len(self.entries) > 1
        more = f" (nor can any of {len(self.entries)} volumes)" * several
        raise UserError(
            f"cannot read {self.files.root / first.name}{more}: {first.damage}; repair or remove it"
        )
