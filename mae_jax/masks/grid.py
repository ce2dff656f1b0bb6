"""Grid-wise masking (arXiv 2111.06377, figure 6), in any number of dimensions."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.masks import MaskContext, Strategy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid(Strategy):
    """Masks a regular pattern, by the position of patches in cells of 2 x 2 (in n dimensions 2^n).

    Positions with an even sum of coordinates stay visible longest, each parity in row-major order;
    equal positions of different cells are in random order. At a mask ratio of 0.5 a checkerboard
    stays visible, and at 1 - 1 / 2^n the first patch of each cell: at 0.75 one of 2 x 2, at 0.875
    one of 2 x 2 x 2.
    """

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        rank = len(context.grid)
        cell = itertools.product((0, 1), repeat=rank)
        order = {at: i for i, at in enumerate(sorted(cell, key=lambda at: (sum(at) % 2, at)))}
        parities = np.indices(context.grid).reshape(rank, -1).T % 2  # [L, rank]
        ranks = jnp.array([order[tuple(at)] for at in parities.tolist()])  # [L]
        # Noise in [0, 1) orders equal ranks at random without mixing different ones.
        return ranks + jax.random.uniform(key, (context.batch, context.length))


def make() -> Grid:
    """Grid-wise masking: a regular pattern stays visible."""
    return Grid()
