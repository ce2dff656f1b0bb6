"""Parameters of an encoder for images of another size or number of channels."""

import jax
import jax.numpy as jnp

from mae_jax.types import UserError


def resample_positions(
    positions: jax.Array, old: tuple[int, int], new: tuple[int, int]
) -> jax.Array:
    """Learned positions for another grid of patches, bicubic.

    Args:
        positions: [1 + h * w, D], that of the class token first.
        old, new: (rows, columns) of patches.

    Returns:
        [1 + h' * w', D].
    """
    if old == new:
        return positions
    first, table = positions[:1], positions[1:].reshape(*old, -1)
    table = jax.image.resize(table, (*new, table.shape[-1]), "bicubic", antialias=False)
    return jnp.concatenate([first, table.reshape(-1, table.shape[-1])])


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
