"""Grids that volumes are resampled to: a crop, a spacing, and the way back to the file's own grid.

As in nnU-Net (Isensee et al., Nature Methods 2021), an axis whose voxels are over three times as
large as along another one is resampled apart, by its nearest slices: interpolation between distant
slices would invent what is between them.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.data.resampling import Resampled, Taps, linear, nearest
from mae_jax.data.volume_geometry import VolumeGeometry

ANISOTROPY = 3
"""Ratio of spacings above which the axis of the largest one is resampled apart."""

SAME = 1e-4
"""Relative difference of spacings up to which they are the same: files hold float32."""

Sides = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PreparedGeometry(VolumeGeometry):
    """Geometry of a volume that was cropped and resampled. `affine`, `shape`, `orientation` and
    `order` are those of its file; `space`, `spacing` and `affine_of_read` are those of the volume
    that is read.
    """

    offset: Sides
    """Voxels that were cropped before each axis [D, H, W], turned to RAS+ and not resampled."""
    extent: Sides
    """Voxels along each axis after that crop."""
    grid: Sides
    """Shape [D, H, W] after resampling."""
    steps: tuple[float, float, float]
    """Distances of voxels in mm after resampling."""

    @property
    def original_space(self) -> Sides:
        """Shape [D, H, W] of the volume in the file."""
        return super().space

    @property
    def original_spacing(self) -> tuple[float, float, float]:
        """Distances of voxels in mm in the file."""
        return super().spacing

    @property
    def space(self) -> Sides:
        """See `VolumeGeometry`."""
        return self.grid

    @property
    def spacing(self) -> tuple[float, float, float]:
        """See `VolumeGeometry`."""
        return self.steps

    @property
    def affine_of_read(self) -> np.ndarray:
        """See `VolumeGeometry`."""
        ratios = np.divide(self.steps, self.original_spacing)
        back = np.diag((*ratios, 1.0))
        back[:3, 3] = np.array(self.offset) + (ratios - 1) / 2
        return super().affine_of_read @ back

    @property
    def box(self) -> tuple[slice, ...]:
        """The crop, as slices of the volume in the file."""
        return tuple(slice(a, a + n) for a, n in zip(self.offset, self.extent, strict=True))

    @property
    def resampled(self) -> bool:
        """Whether spacings changed."""
        return self.steps != self.original_spacing

    def taps(self, *, labels: bool) -> list[Taps]:
        """How the crop becomes the grid: taps of each axis of [D, H, W].

        Args:
            labels: whether to use the nearest voxels, as for class numbers.
        """
        thick = thick_axis(self.original_spacing, self.steps)
        sides = zip(self.extent, self.grid, self.original_spacing, self.steps, strict=True)
        return [
            (nearest if labels or axis == thick else linear)(old, new, after / before)
            for axis, (old, new, before, after) in enumerate(sides)
        ]

    def full(self, array: np.ndarray) -> np.ndarray:
        """An array [*grid, ...] on the grid of the file, turned to RAS+: integers by the nearest
        voxel, floats linear; zeros outside of the crop.
        """
        kind = linear if array.dtype.kind == "f" else nearest
        sides = zip(self.grid, self.extent, self.steps, self.original_spacing, strict=True)
        taps = [kind(old, new, after / before) for old, new, before, after in sides]
        filled = np.zeros((*self.original_space, *array.shape[3:]), array.dtype)
        filled[self.box] = Resampled(array, taps).pixels()
        return filled

    def to_json(self) -> dict[str, Any]:
        """All fields, for `from_json`."""
        return {**dataclasses.asdict(self), "affine": self.affine.tolist()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "PreparedGeometry":
        """Restores a geometry from the result of `to_json`."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**{**values, "affine": np.array(fields["affine"], np.float64)})


def thick_axis(before: Sequence[float], after: Sequence[float]) -> int | None:
    """The axis that is resampled apart: that of the largest spacing, if it is over `ANISOTROPY`
    times the smallest one before or else after resampling; None if there is none, or several.
    """
    for spacing in (before, after):
        if max(spacing) > ANISOTROPY * min(spacing):
            return spacing.index(max(spacing)) if spacing.count(max(spacing)) == 1 else None
    return None


def prepared_geometry(
    geometry: VolumeGeometry, box: Sequence[slice], spacing: Sequence[float] | None
) -> PreparedGeometry:
    """Plans the crop of a volume and its resampling.

    Args:
        geometry: of the volume in its file.
        box: slices of [D, H, W] to keep.
        spacing: distances of voxels in mm along [D, H, W]; 0 keeps that of the volume. None keeps
            all.
    """
    kept = geometry.spacing
    pairs = zip(spacing or kept, kept, strict=True)
    steps = tuple(
        old if not new or math.isclose(new, old, rel_tol=SAME) else new for new, old in pairs
    )
    extent = tuple(one.stop - one.start for one in box)
    sides = zip(extent, kept, steps, strict=True)
    return PreparedGeometry(
        affine=geometry.affine,
        shape=tuple(map(int, geometry.shape)),
        placed=geometry.placed,
        order=tuple(map(int, geometry.order)),
        unit=geometry.unit,
        offset=tuple(one.start for one in box),
        extent=extent,
        grid=tuple(max(1, round(n * old / new)) for n, old, new in sides),
        steps=tuple(map(float, steps)),
    )
