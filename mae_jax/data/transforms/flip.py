"""A mirror, left to right, half of the time."""

import numpy as np

from mae_jax.data.transforms import move, shape_of


class Flip:
    """Mirrors an example at random."""

    draws = 1
    pixels = 0

    def plan(self, u):
        """[B, 1]: 1 to flip, else 0."""
        return (u < 0.5).astype(np.float64)

    def apply(self, example, params):
        """Keeps every shape."""
        if not params[0]:
            return example
        size = shape_of(example)
        return move(example, (0, 0, *size), size, mirror=True)


def make() -> Flip:
    """A random mirror."""
    return Flip()
