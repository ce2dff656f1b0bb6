"""Grid-wise masks (arXiv 2111.06377, figure 6), in any number of dimensions."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.masks import MaskContext, Strategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid(Strategy):
    """Regular, by the places in cells of 2 x 2 patches (in n dimensions 2^n): first the places with
    an even sum of coordinates, then the odd ones, each in row-major order, and at random among
    equal places. So at a ratio of 0.5 a checkerboard stays visible, and at 1 - 1 / 2^n the first
    patch of each cell: at 0.75 one of 2 x 2, at 0.875 one of 2 x 2 x 2.
    """

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        rank = len(context.grid)
        cell = itertools.product((0, 1), repeat=rank)
        order = {place: i for i, place in enumerate(sorted(cell, key=lambda at: (sum(at) % 2, at)))}
        places = np.indices(context.grid).reshape(rank, -1).T % 2  # [L, rank]
        ranks = jnp.array([order[tuple(place)] for place in places.tolist()])
        return ranks + jax.random.uniform(key, (context.batch, context.length))


def make() -> Grid:
    """Masks all but regularly placed patches."""
    return Grid()
