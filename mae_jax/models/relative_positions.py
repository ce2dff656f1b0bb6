"""Relative position bias (BEiT, arXiv 2106.08254): a learned number for each head and each offset
between two patches, added to the logits of the attention. It starts at zero, where it changes
nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class RelativePositions(nn.Module):
    """The bias of one layer of attention. The table has a row for each of (2 rows - 1)(2 columns
    - 1) offsets of patches; with class tokens three more, from them to patches, from patches to
    them, and among them.
    """

    grid: tuple[int, int]
    """Rows and columns of patches."""

    @nn.compact
    def __call__(self, tokens: int, heads: int) -> jax.Array:
        """[1, heads, T, T] float32, for T `tokens`: those of a whole image, then the patches."""
        rows, columns = self.grid
        prefix, patches = tokens - rows * columns, rows * columns
        offsets = (2 * rows - 1) * (2 * columns - 1)
        entries = offsets + 3 * (prefix > 0)
        table = self.param("table", nn.initializers.zeros, (entries, heads)).T  # [H, entries]
        # Products with one-hot matrices: TPUs would gather and scatter single numbers slowly.
        bias = jnp.einsum(
            "hab,aik,bjl->hijkl",
            table[:, :offsets].reshape(heads, 2 * rows - 1, 2 * columns - 1),
            offsets_of(rows),
            offsets_of(columns),
            precision="highest",
        ).reshape(heads, patches, patches)  # of [H, row, column, row of the key, column of the key]
        if prefix:
            fill = lambda i, *shape: jnp.broadcast_to(table[:, offsets + i, None, None], shape)
            first = jnp.concatenate(
                [fill(2, heads, prefix, prefix), fill(0, heads, prefix, patches)], axis=2
            )
            others = jnp.concatenate([fill(1, heads, patches, prefix), bias], axis=2)
            bias = jnp.concatenate([first, others], axis=1)  # [H, T, T]
        return bias[None]


def offsets_of(length: int) -> np.ndarray:
    """[2 length - 1, length, length] float32 with 1 at (i - j + length - 1, i, j), else 0."""
    places = np.arange(length)
    offset = places[:, None] - places + length - 1  # [length, length]
    return (np.arange(2 * length - 1)[:, None, None] == offset).astype(np.float32)
