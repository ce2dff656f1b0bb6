"""Windows of images of any rank: padding up to whole patches, and the mean of what a network
predicts in windows that overlap.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp


def pad_to_multiple(images: jax.Array, sides: Sequence[int], least: Sequence[int] = ()):
    """Images [B, *space, C] with zeros after the last pixels of each axis, up to a multiple of
    `sides`, one for each axis, and at least `least` pixels.
    """
    least = least or (1,) * len(sides)
    more = [
        -(-max(length, few) // side) * side - length
        for length, few, side in zip(images.shape[1:-1], least, sides, strict=True)
    ]
    return jnp.pad(images, ((0, 0), *((0, count) for count in more), (0, 0)))


def mean_of_windows(
    predict: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    corners: jax.Array,
    crop: tuple[int, ...],
    channels: int,
    weights: jax.Array | None = None,
) -> jax.Array:
    """The mean at each pixel of the predictions in the windows that cover it; 0 where there is
    none.

    Args:
        predict: from windows [B, *crop, C] to [B, *crop, channels].
        images: [B, *space, C], at least as large as a window.
        corners: [B, n, rank] int32, where windows begin.
        crop: sides of a window.
        channels: of the predictions.
        weights: [B, *crop], positive, of the pixels of a window; None: all the same.

    Returns:
        [B, *space, channels] float32.
    """

    def add(total, start):  # start: [B, rank]
        cut = lambda row, at: jax.lax.dynamic_slice(row, (*at, 0), (*crop, row.shape[-1]))
        put = lambda row, part, at: jax.lax.dynamic_update_slice(row, cut(row, at) + part, (*at, 0))
        found = predict(jax.vmap(cut)(images, start))
        # [B, *crop, channels + 1], where the last one counts the windows
        counted = jnp.concatenate([found, jnp.ones_like(found[..., :1])], axis=-1)
        counted = counted if weights is None else counted * weights[..., None]
        return jax.vmap(put)(total, counted, start), None

    total = jnp.zeros((*images.shape[:-1], channels + 1))
    total, _ = jax.lax.scan(add, total, jnp.swapaxes(corners, 0, 1))
    return total[..., :-1] / jnp.where(total[..., -1:] > 0, total[..., -1:], 1)
