"""Random flips of images of any rank, each with probability 0.5: along the last axis, which is the
horizontal one, or along several axes.
"""

from collections.abc import Sequence

import numpy as np

from mae_jax.data.fields import move
from mae_jax.data.geometry import Mirrored, Window
from mae_jax.data.transforms import Transform, shape_of
from mae_jax.types import UserError


class Flip(Transform):
    """Flips half of the examples along the last axis."""

    draws = 1

    def plan(self, u):
        """[B, 1]: 1 to flip, else 0."""
        return (u < 0.5).astype(np.float64)

    def apply(self, example, params):
        """Flips the example or returns it unchanged; keeps every shape."""
        if not params[0]:
            return example
        size = shape_of(example, "flip")
        return move(example, Window(box=(0,) * len(size) + size, size=size, mirror=True))


class FlipAxes(Transform):
    """Flips half of the examples along each of some axes, independently."""

    def __init__(self, axes):
        self.axes, self.draws = axes, len(axes)

    def plan(self, u):
        """[B, axes]: 1 to flip, else 0."""
        return (u < 0.5).astype(np.float64)

    def apply(self, example, params):
        """Flips the example or returns it unchanged; keeps every shape."""
        rank = len(shape_of(example, "flip"))
        if max(self.axes) >= rank:
            raise UserError(
                f"flip: axes={self.axes} of images of {rank} axes besides the channels: choose "
                f"from 0 to {rank - 1}"
            )
        axes = tuple(axis for axis, chosen in zip(self.axes, params, strict=True) if chosen)
        return move(example, Mirrored(axes=axes)) if axes else example


def make(*, axes: Sequence[int] | None = None) -> Transform:
    """A random horizontal flip, or flips along several axes, e.g. flip(axes=(0, 1, 2)) of volumes.

    Args:
        axes: axes of the image to flip along: 0 is depth (time) or, in 2-D, height; None: the last.

    Raises:
        UserError: `axes` is not a list of different axes.
    """
    if axes is None:
        return Flip()
    valid = len(axes) > 0 and all(axis >= 0 for axis in axes) and len({*axes}) == len(axes)
    if not valid:
        raise UserError(f"flip: axes={axes!r} should be different axes from 0 on, such as (0, 2)")
    return FlipAxes(tuple(axes))
