"""A mirror, left to right, half of the time: the last axis of images of any rank."""

import numpy as np

from mae_jax.data.fields import move
from mae_jax.data.geometry import Window
from mae_jax.data.transforms import Transform, shape_of


class Flip(Transform):
    """Mirrors an example at random."""

    draws = 1

    def plan(self, u):
        """[B, 1]: 1 to flip, else 0."""
        return (u < 0.5).astype(np.float64)

    def apply(self, example, params):
        """Keeps every shape."""
        if not params[0]:
            return example
        size = shape_of(example, "flip")
        return move(example, Window(box=(0,) * len(size) + size, size=size, mirror=True))


def make() -> Flip:
    """A random mirror."""
    return Flip()
