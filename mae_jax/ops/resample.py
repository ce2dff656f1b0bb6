"""Resamples parameters of an encoder for images of another size or number of channels."""

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.types import UserError


def resample_positions(
    positions: jax.Array,
    old: tuple[int, ...],
    new: tuple[int, ...],
    *,
    prefix: int = 1,
    kernel: str = "bicubic",
) -> jax.Array:
    """Interpolates position embeddings to another grid of patches, bicubic along each axis.

    Args:
        positions: [prefix + L, D], class tokens first.
        old, new: number of patches along each axis, with L and L' patches in all.
        prefix: number of class tokens, whose positions do not change.
        kernel: 'bicubic', Keys' kernel with a = -0.75 and repeated edges, as in PyTorch, the
            official MAE and transformers; or 'antialias', with a = -0.5 and a kernel that widens
            when the grid shrinks, as in Pillow and timm.

    Returns:
        [prefix + L', D].

    Raises:
        UserError: grids with different numbers of axes.
    """
    if len(old) != len(new):
        raise UserError(f"positions of a grid {old} cannot become those of a grid {new}")
    if old == new:
        return positions
    first, table = positions[:prefix], positions[prefix:].reshape(*old, -1)  # [*old, D]
    if kernel == "antialias":
        table = jax.image.resize(table, (*new, table.shape[-1]), "bicubic", antialias=True)
    else:
        # One matrix [new, old] for each axis; in two dimensions "ai,bj,ijz->abz".
        before, after = "ijklmn"[: len(old)], "abcdef"[: len(old)]
        formula = ",".join(map("".join, zip(after, before, strict=True)))
        matrices = map(_bicubic, old, new)
        table = jnp.einsum(f"{formula},{before}z->{after}z", *matrices, table, precision="highest")
    return jnp.concatenate([first, table.reshape(-1, table.shape[-1])])  # [prefix + L', D]


def _bicubic(old: int, new: int) -> np.ndarray:
    """The matrix [new, old] of an interpolation along one axis with the kernel of Keys (1981)."""
    at = (np.arange(new) + 0.5) * old / new - 0.5
    taps = np.floor(at).astype(int)[:, None] + np.arange(-1, 3)
    x, a = np.abs(at[:, None] - taps), -0.75
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    matrix = np.zeros((new, old))
    rows = np.repeat(np.arange(new), 4)
    columns = np.clip(taps, 0, old - 1).ravel()
    np.add.at(matrix, (rows, columns), np.where(x <= 1, near, far).ravel())
    return matrix.astype(np.float32)


def resample_patches(kernel: np.ndarray, old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
    """Adapts a patch embedding to patches of other sides (FlexiViT, arXiv 2212.08013, section 3.4):
    its inner products with all patches change least when these are resized, bicubic. Larger patches
    keep them exactly.

    Args:
        kernel: [prod(old) * C, D], channels innermost.
        old, new: sides of a patch in pixels.

    Returns:
        [prod(new) * C, D] float32.
    """
    x = np.asarray(kernel, np.float64).reshape(*old, -1)  # [*old, C D]
    for axis, (before, after) in enumerate(zip(old, new, strict=True)):
        matrix = np.linalg.pinv(_bicubic(before, after).T.astype(np.float64))  # [new, old]
        x = np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return x.reshape(-1, kernel.shape[1]).astype(np.float32)


def resample_channels(kernel: jax.Array, old: int, new: int) -> jax.Array:
    """Adapts a patch embedding to another number of channels.

    Each new channel gets the sum of the old channels' weights divided by the number of new ones. An
    image with equal channels, such as a gray one, then keeps its embedding.

    Args:
        kernel: [prod(patch) * old, D], channels innermost.
        old, new: numbers of channels.

    Returns:
        [prod(patch) * new, D].
    """
    if old == new:
        return kernel
    if len(kernel) % old:
        raise UserError(f"a patch embedding of {len(kernel)} inputs has no {old} channels")
    # [prod(patch), old, D], then [prod(patch), 1, D]
    total = kernel.reshape(-1, old, kernel.shape[1]).sum(axis=1, keepdims=True)
    return jnp.repeat(total / new, new, axis=1).reshape(-1, kernel.shape[1])
