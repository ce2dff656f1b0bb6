"""The same crop and size for an image, or for every frame of a clip."""

import dataclasses

import numpy as np

from mae_jax.data import images
from mae_jax.data.fields import Field, move
from mae_jax.data.geometry import Window
from mae_jax.data.transforms import Example, plane_of, shape_of
from mae_jax.types import UserError


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


def frame_of(example: Example, where: str) -> tuple[int, int]:
    """(height, width) of an example's image, or of the frames of its clip.

    Args:
        example: the example.
        where: name of the transform, for messages.

    Raises:
        UserError: it has no image, or one that is not uint8.
    """
    if len(shape_of(example, where)) != 3:
        return plane_of(example, where)
    image = example["image"]
    if image.dtype != np.uint8:
        raise UserError(
            f"{where}: images of type {image.dtype}, and those of three dimensions are clips of "
            "uint8: for volumes use spacing_jitter|random_crop"
        )
    return image.shape[1:3]


def move_frames(example: Example, window: Window) -> Example:
    """Crops and resizes an image [H, W, C], or all frames of a clip [T, H, W, C] alike."""
    clip = len(example["image"].shape) == 4
    return move(example, FrameWindow(frame=window) if clip else window)
