"""Finds the volumes in DICOM files: groups slices, and sorts them by their positions.

Names of files, InstanceNumber and SliceLocation are not reliable. A slice is placed by its
ImagePositionPatient along the normal of its ImageOrientationPatient (DICOM PS3.3, C.7.6.2); frames
of enhanced files by the same elements in their functional groups (C.7.6.16.2).
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mae_jax.data.dicom_header import GRAY, PER_FRAME, Image, kind_of, opened
from mae_jax.data.dicom_pixels import check_decoder, group_of, read_values, unused_low_bits
from mae_jax.data.images import BadImage
from mae_jax.data.slices import NoImage
from mae_jax.data.volume_geometry import VolumeGeometry
from mae_jax.data.volumes import Part, Volume

if TYPE_CHECKING:
    import pydicom

SPLITS = ("echo times", "b-values", "times", "stacks", "image types", "acquisitions")
"""What tells slices at the same position apart, in the order tried."""
_SAME_DIRECTION = 1e-3  # of cosines: headers round them
_SAME_POSITION = 1e-2  # in mm
_UNEQUAL = 0.05  # share of a step
_TILT = 0.005  # shift across the normal, as a share of the distance: 0.3 degrees
_SHOWN = 6


class Slice(NamedTuple):
    """One slice: a frame of a file, and where it is in the patient (LPS, in mm)."""

    file: int
    frame: int
    uid: str
    series: tuple
    """What the slices of a volume have in common: series, size and kind of pixels."""
    orientation: tuple[float, ...]
    """[6] cosines of the directions of a row and of a column."""
    position: tuple[float, ...]
    """[3] center of the first pixel."""
    spacing: tuple[float, float]
    """Distances of rows and of columns."""
    splits: tuple[str, ...]
    """Values of `SPLITS`."""


def slices_of(path: Path, file: int) -> list[Slice]:
    """The slices in a file, from its header.

    Args:
        path: the file.
        file: its number.

    Raises:
        NoImage: it has no place in a volume; the message says what it is.
        BadImage: it is damaged, or an element is invalid.
    """
    with opened(path) as image:
        header, kind = image.header, kind_of(image.header)
        if kind == "Segmentation":
            raise NoImage(kind)
        if "LOCALIZER" in str(header.get("ImageType")).upper():
            raise NoImage("localizer")
        if image.frames > 1 and not (header.get(PER_FRAME) or header.get("GridFrameOffsetVector")):
            raise NoImage("several frames without positions (a film)")
        check_decoder(image)
        unused_low_bits(image)  # raises if HighBit is invalid
        found = [_slice(image, frame, file) for frame in range(image.frames)]
    if None in found:
        raise NoImage("image without a position (ImagePositionPatient)")
    return found


def _slice(image: Image, frame: int, file: int) -> Slice | None:
    """One frame; None if it has no position."""
    header = image.header
    within = lambda name: group_of(header, frame, name)
    position = _numbers(within("PlanePositionSequence"), "ImagePositionPatient", 3)
    orientation = _numbers(within("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    if position is None or orientation is None:
        return None
    spacing = _numbers(within("PixelMeasuresSequence"), "PixelSpacing", 2)
    if spacing is None or min(spacing) <= 0:
        raise BadImage(f"its PixelSpacing is {spacing}: the size of its pixels is unknown")
    rows, columns = np.reshape(orientation, (2, 3))
    if abs(rows @ columns) > 0.01 or np.abs([rows @ rows - 1, columns @ columns - 1]).max() > 0.01:
        raise BadImage(f"its ImageOrientationPatient {orientation} is not two directions")
    offsets = header.get("GridFrameOffsetVector")
    if offsets and image.frames > 1:  # radiotherapy dose (DICOM PS3.3, C.8.8.3.2)
        along = float(offsets[frame]) - float(offsets[0])
        position = tuple(np.add(position, along * np.cross(rows, columns)).tolist())
    size = image.options["rows"], image.options["columns"]
    series = (str(header.get("SeriesInstanceUID", "")), *size, image.photometric)
    uid = str(header.get("SOPInstanceUID", "")) or str(file)
    return Slice(file, frame, uid, series, orientation, position, spacing, _splits(header, frame))


def _splits(header: "pydicom.Dataset", frame: int) -> tuple[str, ...]:
    """See `SPLITS`. In enhanced files, echo times and others are in functional groups."""
    within = lambda name: group_of(header, frame, name)
    echo, content = within("MREchoSequence"), within("FrameContentSequence")
    values = (
        echo.get("EffectiveEchoTime", header.get("EchoTime")),
        within("MRDiffusionSequence").get("DiffusionBValue"),
        content.get("TemporalPositionIndex", header.get("TemporalPositionIdentifier")),
        content.get("StackID"),
        header.get("ImageType"),
        header.get("AcquisitionNumber"),
    )
    return tuple(map(str, values))


def _numbers(header: "pydicom.Dataset", keyword: str, count: int) -> tuple[float, ...] | None:
    """Numbers in a header; None if the element is missing or empty."""
    try:
        values = header.get(keyword)
        values = None if values is None else tuple(map(float, values))
    except Exception as error:  # pydicom raises errors of several kinds on other values
        raise BadImage(f"its {keyword} is not numbers ({' '.join(str(error).split())})") from error
    if values and (len(values) != count or not np.isfinite(values).all()):
        raise BadImage(f"its {keyword} is {values}, it should be {count} numbers")
    return values or None


def grouped(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices by volume, each in the order given: one series, orientation, size and kind. If slices
    are at the same position, they are told apart by `SPLITS`, where that leaves the same positions
    in each part.
    """
    groups: list[list[Slice]] = []
    by_series: dict[tuple, list[list[Slice]]] = {}
    for one in slices:
        turned = by_series.setdefault(one.series, [])
        for group in turned:
            apart = np.subtract(one.orientation, group[0].orientation)
            if np.abs(apart).max() < _SAME_DIRECTION:
                group.append(one)
                break
        else:
            turned.append([one])
            groups.append(turned[-1])
    return [part for group in groups for part in _split(group)]


def _split(group: list[Slice]) -> list[list[Slice]]:
    """The volumes of a group, see `grouped`."""
    parts = [group]
    for number in range(len(SPLITS)):
        if all(len(_places(part)) == len(part) for part in parts):
            break
        finer = []
        for part in parts:
            values = sorted({one.splits[number] for one in part})
            pieces = [[one for one in part if one.splits[number] == v] for v in values]
            equal = all(_places(piece) == _places(part) for piece in pieces)
            finer += pieces if equal else [part]
        parts = finer
    return parts


def _places(group: Sequence[Slice]) -> set[int]:
    return {round(one / _SAME_POSITION) for one in along_normal(group)}


def along_normal(group: Sequence[Slice]) -> np.ndarray:
    """[n] float64, positions of slices along their common normal, in mm."""
    rows, columns = np.reshape(group[0].orientation, (2, 3))
    return np.array([one.position for one in group]) @ np.cross(rows, columns)


def geometry_of(group: Sequence[Slice]) -> tuple[VolumeGeometry, list[Slice]]:
    """The geometry of a volume, and its slices in the order of their positions.

    Raises:
        BadImage: slices are at the same position, missing, shifted (gantry tilt), or of different
            spacing; the message lists positions.
    """
    places = along_normal(group)
    order = np.argsort(places, kind="stable")
    ordered, places = [group[n] for n in order], places[order]
    steps = np.diff(places)
    same = np.flatnonzero(steps < _SAME_POSITION)
    if len(same):
        raise BadImage(
            f"{len(group)} slices, of which several are at the same position along the normal, at "
            f"{_listed(places[same])} mm: several volumes in one series, or copies of files"
        )
    step = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - step) > _UNEQUAL * step + _SAME_POSITION)
    if len(uneven):
        between = [f"{places[n]:g} and {places[n + 1]:g}" for n in uneven]
        raise BadImage(
            f"{len(group)} slices at unequal steps, so slices are missing: {step:g} mm, but "
            f"between {_listed(between)} mm along the normal"
        )
    _check_tilt(ordered, places)
    if np.ptp([one.spacing for one in ordered], axis=0).max() > 1e-3:
        raise BadImage("its slices differ in PixelSpacing")
    rows, columns = np.reshape(ordered[0].orientation, (2, 3))
    first, last = (np.array(ordered[n].position) for n in (0, -1))
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(ordered) - 1)
    down, right = ordered[0].spacing
    affine[:3, 1], affine[:3, 2] = columns * down, rows * right
    affine[:3, 3] = first
    affine[:2] *= -1  # LPS to RAS
    shape = (len(ordered), *ordered[0].series[1:3])
    geometry = VolumeGeometry(affine=affine, shape=shape, order=tuple(order.tolist()))
    return geometry, ordered


def _check_tilt(ordered: Sequence[Slice], places: np.ndarray) -> None:
    """Raises BadImage if slices are shifted across their normal, as with a tilted gantry."""
    normal = np.cross(*np.reshape(ordered[0].orientation, (2, 3)))
    positions = np.array([one.position for one in ordered])
    along = np.outer(places - places[0], normal)
    shifts = np.linalg.norm(positions - positions[0] - along, axis=1)  # [n] in mm
    allowed = max(0.1 * min(ordered[0].spacing), _TILT * float(places[-1] - places[0]))
    if shifts.max() > allowed:
        raise BadImage(
            f"{len(ordered)} slices that are shifted by up to {shifts.max():.3g} mm across their "
            "normal, as with a tilted gantry: resample the series to a straight grid; positions "
            f"{_listed([tuple(one) for one in positions.round(3).tolist()])}"
        )


def _listed(values: Sequence) -> str:
    """The first few of a list: '1.5, 2 and 3 more'."""
    texts = [one if isinstance(one, (str, tuple)) else f"{one:g}" for one in values]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(map(str, texts[:_SHOWN])) + more


def open_series(
    path_of: Callable[[int], Path], slices: Sequence[Slice], geometry: VolumeGeometry
) -> Volume:
    """A volume of slices.

    Args:
        path_of: number of a file -> its path.
        slices: in the order of their positions.
        geometry: see `geometry_of`.
    """
    photometric = slices[0].series[3]
    channels = 1 if photometric in GRAY else 3

    def read(part: Part) -> np.ndarray:
        planes = []
        chosen = range(*part[0].indices(len(slices)))
        for file, numbers in itertools.groupby(chosen, lambda n: slices[n].file):
            with opened(path_of(file)) as image:
                start = image.pixels.tell()
                for n in numbers:
                    image.pixels.seek(start)
                    planes.append(read_values(image, slices[n].frame)[part[1:]])
        return np.stack(planes).reshape(len(chosen), *planes[0].shape[:2], channels)

    inverted = photometric == "MONOCHROME1"
    return Volume(geometry=geometry, channels=channels, read=read, inverted=inverted)
