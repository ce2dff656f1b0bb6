"""Random horizontal flip with probability 0.5, along the last axis of images of any rank."""

import numpy as np

from mae_jax.data.fields import move
from mae_jax.data.geometry import Window
from mae_jax.data.transforms import Transform, shape_of


class Flip(Transform):
    """Flips half of the examples."""

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


def make() -> Flip:
    """A random horizontal flip."""
    return Flip()
