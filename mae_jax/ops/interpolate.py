"""Resizing of maps in the conventions of dense prediction, as one matrix for each axis: exact for
every pair of sizes, and a matrix product on every accelerator.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def bilinear_matrix(new: int, old: int) -> np.ndarray:
    """[new, old] float32 weights of linear interpolation along one axis, without antialiasing: what
    PyTorch calls align_corners=False. Samples lie at pixel centers; edges are repeated.
    """
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(at).astype(int)
    share = at - low
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), low), 1 - share)
    np.add.at(matrix, (np.arange(new), np.minimum(low + 1, old - 1)), share)
    return matrix.astype(np.float32)


def pool_matrix(bins: int, length: int) -> np.ndarray:
    """[bins, length] float32 weights of adaptive average pooling along one axis. Bin i covers
    floor(i length / bins) up to ceil((i + 1) length / bins), so bins overlap where `bins` does not
    divide `length`.
    """
    matrix = np.zeros((bins, length))
    for i in range(bins):
        first, end = i * length // bins, math.ceil((i + 1) * length / bins)
        matrix[i, first:end] = 1 / (end - first)
    return matrix.astype(np.float32)


def along_axes(x: jax.Array, *matrices: np.ndarray) -> jax.Array:
    """Applies a matrix [n', n] to each spatial axis of maps [B, *space, C], to [B, *space', C] of
    the same type.
    """
    letters = "tdhw"[-len(matrices) :]
    # One axis after the other, the one that shrinks more first.
    steps = zip(letters, matrices, strict=True)
    for axis, matrix in sorted(steps, key=lambda step: len(step[1]) / step[1].shape[1]):
        before, after = f"b{letters}c", f"b{letters.replace(axis, 'x')}c"
        formula = f"{before},x{axis}->{after}"
        x = jnp.einsum(formula, x, jnp.asarray(matrix, x.dtype), precision="highest")
    return x


def resize(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Maps [B, *space, C] to [B, *size, C], linear along each axis; see `bilinear_matrix`."""
    space = x.shape[1:-1]
    if space == size:
        return x
    return along_axes(x, *(bilinear_matrix(n, m) for n, m in zip(size, space, strict=True)))


def adaptive_pool(x: jax.Array, bins: int) -> jax.Array:
    """Means of maps [B, H, W, C] over `bins` x `bins` parts, [B, bins, bins, C]."""
    return along_axes(x, *(pool_matrix(bins, length) for length in x.shape[1:3]))
