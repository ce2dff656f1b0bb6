"""Fixed sine-cosine position embeddings in two dimensions, as the official MAE computes them.

The first half of the channels encodes the column, the second half the row; each half is
[sin | cos], not interleaved, with frequencies 10000^(-k / (D/4)), k = 0 ... D/4 - 1.
"""

import numpy as np

from mae_jax.types import UserError


def sincos_2d(grid: tuple[int, int], width: int) -> np.ndarray:
    """Position embedding of every patch of a grid.

    Args:
        grid: rows and columns of patches.
        width: channels D, a multiple of 4.

    Returns:
        [L, D] float32, row-major over the grid, computed in float64.

    Raises:
        UserError: the width is not a multiple of 4.
    """
    if width % 4:
        raise UserError(f"width {width} is not a multiple of 4, which sine-cosine positions need")
    rows, columns = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    omega = 10000.0 ** -(np.arange(width // 4, dtype=np.float64) / (width // 4))
    halves = []
    for position in (columns, rows):
        angles = position.reshape(-1, 1) * omega
        halves += [np.sin(angles), np.cos(angles)]
    return np.concatenate(halves, axis=1).astype(np.float32)


def with_class_token(grid: tuple[int, int], width: int) -> np.ndarray:
    """The same [1 + L, D] behind a row of zeros, which is the position of the class token."""
    return np.pad(sincos_2d(grid, width), ((1, 0), (0, 0)))
