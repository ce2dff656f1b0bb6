"""Volumes in files: their geometry, and their values as images that are read in parts."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from mae_jax.data.channel_windows import Windows, channel_levels
from mae_jax.data.images import BadImage
from mae_jax.data.lazy import Lazy
from mae_jax.data.slices import reason
from mae_jax.data.volume_geometry import VolumeGeometry
from mae_jax.data.volume_windows import sampled

CHUNK = 2**20
"""Values that are read and windowed at a time, about, so that memory holds few of them as
float64."""

Part = tuple[slice, slice, slice]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A volume in one file or several, opened: nothing but headers has been read."""

    geometry: VolumeGeometry
    channels: int
    read: Callable[[Part], np.ndarray]
    """Reads a part of the own array, in the order of positions: values [a, b, c, C], in the units
    of the file."""
    slow: int = 0
    """Own axis along which the file is cut most cheaply."""
    inverted: bool = False
    """Whether the lowest value is white."""

    def values(self, part: tuple[slice, ...]) -> np.ndarray:
        """A part [d, h, w, C] of the volume in RAS+, in the units of the file."""
        return self.geometry.turned(self.read(self.geometry.own_slices(part)))

    def sample(self) -> np.ndarray:
        """The voxels [d, h, w, C] that windows are found from."""
        return self.values(sampled(self.geometry.space))

    def chunks(self, part: Part) -> Iterator[tuple[Part, Part]]:
        """Parts of the own array that make up a part, and where each belongs in it."""
        rows = [range(*one.indices(n)) for one, n in zip(part, self.geometry.shape, strict=True)]
        plane = math.prod(len(r) for axis, r in enumerate(rows) if axis != self.slow)
        step = max(1, CHUNK // max(1, plane * self.channels))
        for first in range(0, len(rows[self.slow]), step):
            chosen = rows[self.slow][first : first + step]
            source, target = list(part), [slice(None)] * 3
            source[self.slow] = slice(chosen[0], chosen[-1] + 1, chosen.step)
            target[self.slow] = slice(first, first + len(chosen))
            yield tuple(source), tuple(target)


class VolumeImage(Lazy):
    """The levels [D, H, W, C] of a volume.

    Args:
        volume: the volume.
        window: returns the window, or one for each channel, when a part is read; None keeps uint8
            values.
        dtype: uint8, float16 or float32.
        report: called with the number of NaN in a part, if there are any.
    """

    def __init__(
        self,
        volume: Volume,
        window: Callable[[], Windows],
        dtype: np.dtype,
        report: Callable[[int], None],
    ):
        self.volume, self._window, self.dtype, self._report = volume, window, dtype, report
        self.shape = (*volume.geometry.space, volume.channels)

    def exact(self) -> "VolumeImage":
        """The same levels, not rounded: float32."""
        return VolumeImage(self.volume, self._window, np.dtype(np.float32), self._report)

    def __getitem__(self, part):
        """[d, h, w, C]."""
        try:
            return self._levels(part)
        except BadImage:
            raise
        except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
            raise BadImage(reason(error)) from error

    def _levels(self, part: tuple[slice, ...]) -> np.ndarray:
        volume, window = self.volume, self._window()
        own = volume.geometry.own_slices(part)
        sides = [len(range(*one.indices(n))) for one, n in zip(own, volume.geometry.shape)]
        levels, missing = np.empty((*sides, volume.channels), self.dtype), 0
        for source, target in volume.chunks(own):
            values = volume.read(source)
            missing += int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
            levels[target] = channel_levels(values, window, self.dtype)
        if missing:
            self._report(missing)
        return volume.geometry.turned(255 - levels if volume.inverted else levels)


class VolumeLabels(Lazy):
    """The class numbers [D, H, W] int32 of a volume of labels.

    Args:
        volume: the labels.
        image: the volume that they belong to.

    Raises:
        BadImage: they have several channels, or lie elsewhere in space.
    """

    dtype = np.dtype(np.int32)

    def __init__(self, volume: Volume, image: Volume):
        mine, other = volume.geometry, image.geometry
        self.shape, self.volume = mine.space, volume
        if volume.channels != 1:
            raise BadImage(f"its mask has {volume.channels} channels: one, of class numbers, is it")
        if self.shape != other.space:
            raise BadImage(f"its mask is {self.shape}, the volume {other.space}, turned to RAS+")
        if not (mine.measured and other.measured):  # one of the two does not say where it is
            return
        corners = np.array([(*np.multiply(c, self.shape), 1) for c in np.ndindex(2, 2, 2)])
        apart = corners @ (mine.affine_of_read - other.affine_of_read)[:3].T  # [8, 3] in mm
        if np.abs(apart).max() > min(other.spacing) / 2:
            raise BadImage(
                f"its mask is up to {np.abs(apart).max():.3g} mm away from the volume: save both "
                "with the same affine and unit"
            )

    def __getitem__(self, part):
        """[d, h, w]."""
        try:
            values = self.volume.values(part)[..., 0]
        except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
            raise BadImage(f"its mask: {reason(error)}") from error
        numbers = values.astype(np.int32)
        if not np.array_equal(numbers, values):
            raise BadImage(f"its mask holds {values.dtype} values that are no whole numbers")
        return numbers
