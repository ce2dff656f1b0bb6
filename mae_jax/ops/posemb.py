"""Fixed sine-cosine position embeddings in any number of dimensions; in two, identical to those of
the official MAE.

The axes have equal, even numbers of channels, in the order column, row, depth: [sin | cos], not
interleaved, with frequencies 10000^(-k / n) for k = 0 ... n - 1. Remaining channels are zero.
"""

import numpy as np

from mae_jax.types import UserError


def sincos(grid: tuple[int, ...], width: int) -> np.ndarray:
    """Position embeddings of all patches of a grid.

    Args:
        grid: number of patches along each axis.
        width: channels D, at least two for each axis.

    Returns:
        [L, D] float32, row-major over the grid, computed in float64.

    Raises:
        UserError: the width is too small.
    """
    count = width // (2 * len(grid))  # frequencies per axis
    if count < 1:
        raise UserError(
            f"width {width} is too small for sine-cosine positions in {len(grid)} dimensions: it "
            f"must be at least {2 * len(grid)}"
        )
    omega = 10000.0 ** -(np.arange(count, dtype=np.float64) / count)
    parts = []
    for position in reversed(np.indices(grid)):
        angles = position.reshape(-1, 1) * omega  # [L, count]
        parts += [np.sin(angles), np.cos(angles)]
    table = np.concatenate(parts, axis=1).astype(np.float32)  # [L, 2 count * rank]
    return np.pad(table, ((0, 0), (0, width - table.shape[1])))


def with_prefix(grid: tuple[int, ...], width: int, prefix: int = 1) -> np.ndarray:
    """Position embeddings [prefix + L, D], with zeros for `prefix` class tokens first."""
    return np.pad(sincos(grid, width), ((prefix, 0), (0, 0)))
