"""What a picture of masked reconstructions needs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.ops import losses, pixels
from mae_jax.ops.patches import grid_of, patchify, unpatchify


def reconstructions(
    original: jax.Array,
    prediction: jax.Array,
    hidden: jax.Array,
    *,
    patch: int,
    normalized: bool,
    mean: Sequence[float],
    std: Sequence[float],
) -> dict[str, jax.Array]:
    """Every way to look at a prediction.

    Args:
        original: [B, H, W, C] uint8.
        prediction: [B, L, P] of all patches, in the range of the loss' target.
        hidden: [B, L] bool.
        patch: side in pixels.
        normalized: the target was normalised for each patch.
        mean, std: of the network's inputs.

    Returns:
        Each [B, H, W, C] uint8 unless said: 'original'; 'masked' (hidden patches grey); 'raw', what
        the network says: pixels, or for a normalised target grey plus a quarter of the range per
        standard deviation; 'denormalized', pixels, for a normalised target by means of the TRUE
        mean and deviation of each patch; 'pasted', that with the visible patches in place; 'hidden'
        [B, L] bool.
    """
    grid, place = grid_of(original.shape[1:3], patch), hidden[:, :, None]
    images = pixels.normalize(original, mean, std)
    target, predicted = patchify(images, patch), prediction.astype(jnp.float32)
    grey = pixels.normalize(jnp.full_like(original, 128), mean, std)
    show = lambda tokens: pixels.to_bytes(unpatchify(tokens, patch, grid), mean, std)
    raw = show(predicted)
    if normalized:
        raw = pixels.to_bytes(unpatchify(predicted, patch, grid), (0.5,), (0.25,))
        average, deviation = losses.patch_statistics(target)
        predicted = predicted * deviation + average
    return {
        "original": original,
        "masked": show(jnp.where(place, patchify(grey, patch), target)),
        "raw": raw,
        "denormalized": show(predicted),
        "pasted": show(jnp.where(place, predicted, target)),
        "hidden": hidden,
    }
