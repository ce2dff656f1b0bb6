"""Geometric transforms: crop and resize, padding, and affine maps. Each is applied consistently to
pixels, segmentations and boxes, see `fields.move`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image

from mae_jax.data import images
from mae_jax.data.fields import Field
from mae_jax.data.resampling import Resampled, Taps, linear, nearest

Color = tuple[int, int, int]
"""(red, green, blue), of pixels from outside the image; a gray image has their luminance there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """Crops a box and, in 2-D, resizes it with antialiasing."""

    box: images.Box
    """(top, left, height, width) in pixels; in general, start and then extent along all axes."""
    size: tuple[int, ...]
    """(height, width) of the result; for other ranks, equal to the extent of the box."""
    mirror: bool = False
    """Whether to reverse the last axis, left to right."""
    kernel: str = "bicubic"
    """Resampling kernel for pixels, a name in `resizing.KERNELS`."""

    def pixels(self, values):
        """See `Geometry`."""
        if len(self.size) == 2:
            cut = images.cut(values, self.box, self.size, self.kernel)
            return images.mirror(cut) if self.mirror else cut
        cut = values[self._part()]
        return np.flip(cut, len(self.size) - 1) if self.mirror else cut

    def _part(self) -> tuple[slice, ...]:
        """The box as slices, for ranks other than 2."""
        return tuple(slice(a, a + n) for a, n in zip(self.box, self.size))

    def nearest(self, values, field):
        """See `Geometry`."""
        rank = len(self.size)
        if rank != 2:
            cut = values[self._part()]
            return np.flip(cut, rank - 1) if self.mirror else cut
        indices = [
            (self.box[axis] + (np.arange(n) + 0.5) * self.box[axis + rank] / n).astype(int)
            for axis, n in enumerate(self.size)
        ]
        indices[-1] = indices[-1][:: -1 if self.mirror else 1]
        return values[np.ix_(*indices)]  # [*size, ...]

    def boxes(self, boxes, shape):
        """See `Geometry`."""
        rank = len(shape)
        corners = boxes.reshape(*boxes.shape[:-1], 2, rank)  # [..., (low, high), axis]
        start, extent = np.asarray(self.box[:rank]), np.asarray(self.box[rank:])
        corners = (corners * shape - start) / extent
        if self.mirror:
            last = 1 - corners[..., ::-1, -1:]
            corners = np.concatenate([corners[..., :-1], last], axis=-1)
        corners = np.clip(corners, 0, 1)
        visible = (corners[..., 1, :] > corners[..., 0, :]).all(-1)
        return np.where(visible[..., None, None], corners, 0).reshape(boxes.shape)

    def back(self, points, shape):
        """See `Geometry`."""
        rank = len(shape)
        start, extent = np.asarray(self.box[:rank]), np.asarray(self.box[rank:])
        if self.mirror:
            points = np.concatenate([points[..., :-1], 1 - points[..., -1:]], axis=-1)
        return (start + points * extent) / shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Padded:
    """Pixels are added after the last ones of each axis: rows below and columns to the right."""

    size: tuple[int, ...]
    """Size of the result, (height, width) in 2-D, at least that of the image."""
    fill: Color
    """Of the added pixels."""

    def pixels(self, values):
        """See `Geometry`."""
        values = images.pixels_of(values)
        channels = values.shape[-1]
        padded = np.empty((*self.size, channels), values.dtype)
        padded[:] = self.fill if channels == 3 else gray_of(self.fill)
        padded[tuple(map(slice, values.shape[:-1]))] = values
        return padded

    def nearest(self, values, field):
        """See `Geometry`."""
        rank = len(self.size)
        values = images.pixels_of(values)
        # In the type of batches: a bool has no room for the value of IGNORE.
        shape = (*self.size, *values.shape[rank:])
        padded = np.full(shape, field.fill, field.dtype or values.dtype)
        padded[tuple(map(slice, values.shape[:rank]))] = values
        return padded

    def boxes(self, boxes, shape):
        """See `Geometry`."""
        return boxes * np.tile(np.divide(shape, self.size), 2)

    def back(self, points, shape):
        """See `Geometry`."""
        return points * np.divide(self.size, shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirrored:
    """Axes are reversed."""

    axes: tuple[int, ...]
    """0: depth or height, ..."""

    def pixels(self, values):
        """See `Geometry`."""
        return np.flip(images.pixels_of(values), self.axes)

    def nearest(self, values, field):
        """See `Geometry`."""
        return np.flip(images.pixels_of(values), self.axes)

    def boxes(self, boxes, shape):
        """See `Geometry`."""
        corners = boxes.reshape(*boxes.shape[:-1], 2, len(shape)).copy()
        filled = corners.any((-2, -1))
        for axis in self.axes:
            corners[..., axis] = 1 - corners[..., ::-1, axis]
        return np.where(filled[..., None, None], corners, 0).reshape(boxes.shape)

    def back(self, points, shape):
        """See `Geometry`."""
        points = np.array(points)
        points[..., self.axes] = 1 - points[..., self.axes]
        return points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strided:
    """Every k-th position of the first axis, such as frames of a video. Where it ends early, its
    last position is repeated.
    """

    start: int
    count: int
    stride: int

    @property
    def _part(self) -> tuple[slice]:
        end = self.start + (self.count - 1) * self.stride + 1
        return (slice(self.start, end, self.stride),)

    def pixels(self, values):
        """See `Geometry`."""
        found = values[self._part]
        if len(found) == self.count:
            return found
        last = values[(slice(values.shape[0] - 1, None),)]
        return np.concatenate([found, *[last] * (self.count - len(found))])

    def nearest(self, values, field):
        """See `Geometry`."""
        return self.pixels(values)

    def boxes(self, boxes, shape):
        """See `Geometry`: of the frames from the first to the last one, and those between them. A
        box that lasts until the end lasts as long as the last frame is repeated.
        """
        moved, rank = self._window(shape).boxes(boxes, shape), len(shape)
        if self._is_short(shape):
            lasting = (boxes[..., rank] >= 1) & moved.any(-1)
            moved[..., rank] = np.where(lasting, 1, moved[..., rank])
        return moved

    def back(self, points, shape):
        """See `Geometry`."""
        points = self._window(shape).back(points, shape)
        if self._is_short(shape):
            points[..., 0] = np.minimum(points[..., 0], 1)
        return points

    def _is_short(self, shape: tuple[int, ...]) -> bool:
        """Whether the first axis of an image of this shape [*space] ends early."""
        return self._part[0].stop > shape[0]

    def _window(self, shape: tuple[int, ...]) -> Window:
        size = (self.count * self.stride, *shape[1:])
        return Window(box=(self.start, *(0,) * (len(shape) - 1), *size), size=size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rescaled:
    """The whole image at another size: linear, labels by the nearest voxel. It is read when it is
    indexed.
    """

    size: tuple[int, ...]
    """Size of the result along all axes."""

    def pixels(self, values):
        """See `Geometry`."""
        return Resampled(values, self._taps(values.shape, linear))

    def nearest(self, values, field):
        """See `Geometry`."""
        return Resampled(values, self._taps(values.shape, nearest))

    def _taps(self, shape: tuple[int, ...], kind: Callable[[int, int, float], Taps]) -> list[Taps]:
        return [kind(old, new, old / new) for old, new in zip(shape, self.size)]

    def boxes(self, boxes, shape):
        """See `Geometry`: as shares of the image, they stay."""
        return boxes

    def back(self, points, shape):
        """See `Geometry`."""
        return points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Affine:
    """An affine map in 2-D with bicubic interpolation; the size of the image stays."""

    matrix: np.ndarray
    """[2, 3], maps (x, y, 1) in the result to (x, y) in the image, in pixels from the upper left
    corner."""
    fill: Color
    """Color outside the image."""

    def pixels(self, values):
        """See `Geometry`: [H, W, 1 or 3] uint8."""
        image = pillow_of(values)
        moved = image.transform(
            image.size,
            Image.Transform.AFFINE,
            self.matrix.ravel().tolist(),
            Image.Resampling.BICUBIC,
            fillcolor=gray_of(self.fill) if image.mode == "L" else self.fill,
        )
        return np.asarray(moved).reshape(values.shape)

    def nearest(self, values: np.ndarray, field: Field):
        """See `Geometry`."""
        height, width = values.shape[:2]
        y, x = np.mgrid[:height, :width] + 0.5
        columns, rows = (np.floor(a * x + b * y + c).astype(int) for a, b, c in self.matrix)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        # In the dtype of batches, since bool cannot hold IGNORE.
        moved = np.full(values.shape, field.fill, field.dtype or values.dtype)
        moved[inside] = values[rows[inside], columns[inside]]
        return moved

    def boxes(self, boxes, shape):
        """See `Geometry`: bounding boxes of the moved corners."""
        matrix, size = self.matrix, np.array(shape[::-1])
        corners = boxes[..., [[1, 0], [1, 2], [3, 0], [3, 2]]] * size  # [..., 4, 2] of (x, y)
        moved = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T / size
        low, high = (np.clip(edge, 0, 1)[..., ::-1] for edge in (moved.min(-2), moved.max(-2)))
        filled = (boxes[..., :2] < boxes[..., 2:]).all(-1) & (low < high).all(-1)
        return np.where(filled[..., None], np.concatenate([low, high], axis=-1), 0)

    def back(self, points, shape):
        """See `Geometry`."""
        size = np.array(shape[::-1])
        moved = points[..., ::-1] * size @ self.matrix[:, :2].T + self.matrix[:, 2]  # (x, y)
        return (moved / size)[..., ::-1]


def gray_of(color: Color) -> int:
    """Luminance."""
    red, green, blue = color
    return round(0.299 * red + 0.587 * green + 0.114 * blue)


def pillow_of(pixels: np.ndarray) -> Image.Image:
    """[H, W, 1 or 3] uint8 as a Pillow image."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
