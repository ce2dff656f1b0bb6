"""Where the voxels of a volume are in space, and how its array is turned to RAS+ and back.

Files store the axes of a volume in any order and direction. An affine map (NIfTI) or positions and
directions (DICOM) say where a voxel is. Volumes are read in one orientation, that of nibabel's
`as_closest_canonical`: axes are permuted and reversed, and never resampled.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mae_jax.data.images import BadImage

CODES = (("L", "R"), ("P", "A"), ("I", "S"))
"""Letters of the two directions of x, y and z: left and right, posterior and anterior, inferior and
superior."""

STACK = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64)
"""Affine of a stack of images [D, H, W] without a position in space: read as stored."""


MILLIMETERS = {"mm": 1.0, "micron": 1e-3, "meter": 1e3}
"""Units of files, by nibabel's names, in mm."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class VolumeGeometry:
    """Geometry of one volume. Its own array is [i, j, k] as in its file; the array that is read is
    [D, H, W]: z upward, y to the front, x to the right, i.e. RAS+ with the axes reversed.
    """

    affine: np.ndarray
    """[4, 4] float64, maps a voxel (i, j, k) of the own array to (x, y, z) in mm, RAS+; for DICOM,
    of the slices in the order of their positions."""
    shape: tuple[int, int, int]
    """Shape of the own array without channels."""
    placed: bool = True
    """Whether the file says where the volume is."""
    order: tuple[int, ...] = ()
    """DICOM: number of the slice of the own array, in the order of files and frames, at each
    position along its first axis; empty if that is the order of positions."""
    unit: str = "mm"
    """Unit of the file, a key of `MILLIMETERS`; the fields here are in mm all the same."""

    def __post_init__(self):
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise BadImage("its affine is not finite: set it again, or remove the file")
        if abs(np.linalg.det(self.affine[:3, :3])) <= 1e-9 * np.prod(self._zooms):
            raise BadImage("its affine is singular, so the axes of the volume are unknown")

    @property
    def measured(self) -> bool:
        """Whether the file says how large voxels are."""
        return self.placed or not np.array_equal(self.affine, STACK)

    @property
    def _zooms(self) -> np.ndarray:
        return np.sqrt((self.affine[:3, :3] ** 2).sum(0))

    @functools.cached_property
    def directions(self) -> tuple[tuple[int, int], ...]:
        """For each own axis, (the axis x, y or z that it is closest to, 1 or -1)."""
        return directions(self.affine)

    @property
    def orientation(self) -> str:
        """Letters of the directions in which i, j and k increase, such as 'LPS'."""
        return "".join(CODES[axis][sign > 0] for axis, sign in self.directions)

    @property
    def axes(self) -> tuple[int, int, int]:
        """Own axes that become depth, height and width."""
        world = [axis for axis, _ in self.directions]
        return tuple(world.index(axis) for axis in (2, 1, 0))

    @property
    def flips(self) -> tuple[int, ...]:
        """Axes of [D, H, W] that are reversed."""
        return tuple(n for n, own in enumerate(self.axes) if self.directions[own][1] < 0)

    @property
    def space(self) -> tuple[int, int, int]:
        """Shape [D, H, W] of the volume that is read."""
        return tuple(self.shape[own] for own in self.axes)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distances of voxels in mm along depth, height and width; 1 where a file has none."""
        return tuple(float(self._zooms[own]) for own in self.axes)

    @property
    def affine_of_read(self) -> np.ndarray:
        """[4, 4] float64, maps a voxel (d, h, w) of the volume that is read to (x, y, z) in mm."""
        back = np.zeros((4, 4))
        back[3, 3] = 1
        for n, own in enumerate(self.axes):
            flipped = n in self.flips
            back[own, n] = -1 if flipped else 1
            back[own, 3] = self.shape[own] - 1 if flipped else 0
        return self.affine @ back

    def own_slices(self, part: Sequence[slice]) -> tuple[slice, slice, slice]:
        """The slices of the own array, in the order of positions, that hold a part of [D, H, W].

        Args:
            part: slices with positive steps, at most three; missing ones are whole.
        """
        part = (*part, *[slice(None)] * (3 - len(part)))
        found = [slice(0)] * 3
        for n, (own, size) in enumerate(zip(self.axes, self.space, strict=True)):
            rows = range(*part[n].indices(size))
            if len(rows):
                first, last = rows[0], rows[-1]
                if n in self.flips:
                    first, last = size - 1 - last, size - 1 - first
                found[own] = slice(first, last + 1, rows.step)
        return tuple(found)

    def turned(self, array: np.ndarray) -> np.ndarray:
        """A view [D, H, W, ...] of an own array, in the order of positions, or of a part of it."""
        array = array.transpose(*self.axes, *range(3, array.ndim))
        return np.flip(array, self.flips)

    def full(self, array: np.ndarray) -> np.ndarray:
        """An array [D, H, W, ...] of the volume that is read, on the grid of the file: unchanged,
        but for volumes that were prepared.
        """
        return array


def directions(affine: np.ndarray) -> tuple[tuple[int, int], ...]:
    """For each axis of an array, the axis of space that it is closest to, and its sign: that of
    nibabel's `io_orientation`, from the rotation nearest to the affine.

    Args:
        affine: [4, 4], of full rank.
    """
    matrix = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(0))
    left, _, right = np.linalg.svd(matrix)
    rotation = left @ right
    found: list[tuple[int, int]] = [(0, 0)] * 3
    for own in np.argsort(-(rotation**2).max(0), kind="stable"):  # the clearest first
        axis = int(np.abs(rotation[:, own]).argmax())
        found[own] = (axis, 1 if rotation[axis, own] > 0 else -1)
        rotation[axis] = 0
    return tuple(found)


def to_original(array: np.ndarray, geometry: VolumeGeometry) -> np.ndarray:
    """Turns an array of a volume that was read, such as a prediction, back to its file's own axes.
    Of a prepared volume, undoes resampling and crop, too: integers by the nearest voxel, floats
    linear, and zeros outside of the crop.

    Args:
        array: [D, H, W] or [D, H, W, C].
        geometry: of the volume, see `Volumes.geometry`.

    Returns:
        [i, j, k] or [i, j, k, C], to save with the affine of the geometry, in mm. For DICOM,
        [slice, row, column]: slices in the order of their files' names, and of frames in a file.

    Raises:
        ValueError: the array has another shape than the volume.
    """
    if array.shape[:3] != geometry.space:
        raise ValueError(f"an array of shape {array.shape} is none of a volume {geometry.space}")
    array = np.flip(geometry.full(array), geometry.flips)
    array = array.transpose(*np.argsort(geometry.axes), *range(3, array.ndim))
    if geometry.order:
        array = array[np.argsort(geometry.order)]
    return np.ascontiguousarray(array)
