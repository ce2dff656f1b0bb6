"""Parameters of an encoder for images of another size or number of channels."""

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.types import UserError


def resample_positions(
    positions: jax.Array,
    old: tuple[int, int],
    new: tuple[int, int],
    *,
    kernel: str = "bicubic",
) -> jax.Array:
    """Positions for another grid of patches, bicubic.

    Args:
        positions: [1 + h * w, D], that of the class token first.
        old, new: (rows, columns) of patches.
        kernel: 'bicubic' (Keys' with a = -0.75, edges repeated: PyTorch's, and so that of the
            official MAE and of transformers) or 'antialias' (a = -0.5, wider where the grid
            shrinks: Pillow's, and timm's).

    Returns:
        [1 + h' * w', D].
    """
    if old == new:
        return positions
    first, table = positions[:1], positions[1:].reshape(*old, -1)
    if kernel == "antialias":
        table = jax.image.resize(table, (*new, table.shape[-1]), "bicubic", antialias=True)
    else:
        rows, columns = _bicubic(old[0], new[0]), _bicubic(old[1], new[1])
        table = jnp.einsum("rh,cw,hwd->rcd", rows, columns, table, precision="highest")
    return jnp.concatenate([first, table.reshape(-1, table.shape[-1])])


def _bicubic(old: int, new: int) -> np.ndarray:
    """The matrix [new, old] of an interpolation along one axis, by Keys' kernel (1981)."""
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


def resample_channels(kernel: jax.Array, old: int, new: int) -> jax.Array:
    """A patch embedding for another number of channels.

    To one channel, the sum over all: a grey image gives what it gave as a colour image. To several,
    the mean over the old ones for each, scaled so that equal channels give what they gave.

    Args:
        kernel: [patch * patch * old, D], channels innermost.
        old, new: numbers of channels.

    Returns:
        [patch * patch * new, D].
    """
    if old == new:
        return kernel
    if len(kernel) % old:
        raise UserError(f"a patch embedding of {len(kernel)} inputs has no {old} channels")
    total = kernel.reshape(-1, old, kernel.shape[1]).sum(axis=1, keepdims=True)
    return jnp.repeat(total / new, new, axis=1).reshape(-1, kernel.shape[1])
