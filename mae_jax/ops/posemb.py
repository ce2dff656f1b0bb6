"""Fixed sine-cosine position embeddings in any number of dimensions; in two, identical to those of
the official MAE.

The axes have equal, even numbers of channels, in the order column, row, depth: [sin | cos], not
interleaved, with frequencies 10000^(-k / n) for k = 0 ... n - 1. Remaining channels are zero.
Positions are indices of patches, or centimeters. VideoMAE's table, of one axis, is `flat_sincos`.
"""

import math
from collections.abc import Sequence

import numpy as np

from mae_jax.types import UserError

MM_PER_UNIT = 10.0
"""Millimeters in one unit of position, the centimeter: frequencies are at most 1 rad a unit, so
that patches of 8 to 16 voxels of 1 mm are about as far apart as patches that are counted."""


def sincos(grid: tuple[int, ...], width: int, extent: Sequence[float] = ()) -> np.ndarray:
    """Position embeddings of all patches of a grid.

    Args:
        grid: number of patches along each axis.
        width: channels D, at least two for each axis.
        extent: length of a patch along each axis in mm: positions are those of the centers of
            patches in centimeters from the corner of the grid. (): positions are indices.

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
    for position in reversed(_coordinates(grid, extent)):
        angles = position.reshape(-1, 1) * omega  # [L, count]
        parts += [np.sin(angles), np.cos(angles)]
    table = np.concatenate(parts, axis=1).astype(np.float32)  # [L, 2 count * rank]
    return np.pad(table, ((0, 0), (0, width - table.shape[1])))


def with_prefix(grid: tuple[int, ...], width: int, prefix: int = 1) -> np.ndarray:
    """Position embeddings [prefix + L, D], with zeros for `prefix` class tokens first."""
    return np.pad(sincos(grid, width), ((prefix, 0), (0, 0)))


def _coordinates(grid: tuple[int, ...], extent: Sequence[float]) -> Sequence[np.ndarray]:
    """One array [*grid] for each axis."""
    if not extent:
        return np.indices(grid)
    pairs = zip(grid, extent, strict=True)
    centers = [(np.arange(n) + 0.5) * mm / MM_PER_UNIT for n, mm in pairs]
    return np.meshgrid(*centers, indexing="ij")


def flat_sincos(grid: tuple[int, ...], width: int) -> np.ndarray:
    """VideoMAE's table (arXiv 2203.12602), of the number i of a patch in row-major order: channel
    2 k is sin(i / 10000^(2 k / D)), and channel 2 k + 1 the cosine.

    Args:
        grid: number of patches along each axis; only their product counts.
        width: channels D.

    Returns:
        [L, D] float32, computed in float64.
    """
    channels = np.arange(width)
    angles = np.arange(math.prod(grid))[:, None] / 10000.0 ** (channels // 2 * 2 / width)  # [L, D]
    return np.where(channels % 2, np.cos(angles), np.sin(angles)).astype(np.float32)
