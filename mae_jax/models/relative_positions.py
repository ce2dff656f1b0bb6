"""Relative position bias (BEiT, arXiv 2106.08254): a learned number for each head and each offset
between two patches, added to the logits of the attention. It starts at zero, where it changes
nothing.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class RelativePositions(nn.Module):
    """The bias of one layer of attention."""

    grid: tuple[int, int]
    """Rows and columns of patches."""

    @nn.compact
    def __call__(self, tokens: int, heads: int) -> jax.Array:
        """[1, heads, T, T] float32, for T `tokens`: those of a whole image, then the patches."""
        index = offset_index(self.grid, tokens - math.prod(self.grid))
        table = self.param("table", nn.initializers.zeros, (index.max() + 1, heads))
        return jnp.moveaxis(table[index], -1, 0)[None]  # of [T, T, heads]


def offset_index(grid: tuple[int, int], prefix: int) -> np.ndarray:
    """Which row of the table each pair of tokens has, [T, T]: (2 rows - 1)(2 columns - 1) for the
    offsets of patches, then with class tokens three more, from them to patches, from patches to
    them, and among them.

    Args:
        grid: rows and columns of patches.
        prefix: number of class tokens.
    """
    rows, columns = grid
    places = np.indices(grid).reshape(2, -1)  # [2, L]
    down, right = places[:, :, None] - places[:, None, :]  # [L, L]
    index = (down + rows - 1) * (2 * columns - 1) + right + columns - 1
    offsets = (2 * rows - 1) * (2 * columns - 1)
    index = np.pad(index, ((prefix, 0), (prefix, 0)))
    index[:prefix, prefix:] = offsets
    index[prefix:, :prefix] = offsets + 1
    index[:prefix, :prefix] = offsets + 2
    return index
