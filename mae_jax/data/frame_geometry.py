"""The same crop and size for every frame of a clip."""

import dataclasses

import numpy as np

from mae_jax.data import images
from mae_jax.data.fields import Field
from mae_jax.data.geometry import Window


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameWindow:
    """Crops and resizes all frames of a clip [T, H, W, C] alike; see `fields.Geometry`."""

    frame: Window
    """What is done to a frame."""

    def pixels(self, values):
        """See `Geometry`."""
        return np.stack([self.frame.pixels(one) for one in images.pixels_of(values)])

    def nearest(self, values, field: Field):
        """See `Geometry`."""
        return np.stack([self.frame.nearest(one, field) for one in images.pixels_of(values)])

    def boxes(self, boxes, shape):
        """See `Geometry`: times stay."""
        return self._whole(shape).boxes(boxes, shape)

    def back(self, points, shape):
        """See `Geometry`."""
        return self._whole(shape).back(points, shape)

    def _whole(self, shape: tuple[int, ...]) -> Window:
        """The window in three dimensions, in which shares of the clip move as they do in it."""
        (top, left, height, width), times = self.frame.box, shape[0]
        return Window(
            box=(0, top, left, times, height, width),
            size=(times, *self.frame.size),
            mirror=self.frame.mirror,
        )
