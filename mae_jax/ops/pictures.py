"""What a picture of masked reconstructions needs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.ops import pixels
from mae_jax.ops.patches import grid_of, patchify, unpatchify


def reconstructions(
    original: jax.Array,
    predicted: jax.Array,
    masked: jax.Array,
    *,
    patch: int | Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    relative: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Every way to look at a prediction.

    Args:
        original: [B, *space, C] uint8.
        predicted: [B, L, P] pixels of all patches, in the range of the network's inputs.
        masked: [B, L] bool.
        patch: side in pixels, or one for each axis.
        mean, std: of the network's inputs.
        relative: [B, L, P] the same in standard deviations of each patch, if that is what the
            network predicts.

    Returns:
        Each [B, *space, C] uint8: 'original'; 'masked' (masked patches grey); 'raw', what the
        network predicts: pixels, or for `relative` grey plus a quarter of the range per standard
        deviation; 'denormalized', the predicted pixels; 'pasted', that with the visible patches in
        place.
    """
    grid, place = grid_of(original.shape[1:-1], patch), masked[:, :, None]
    target = patchify(pixels.normalize(original, mean, std), patch)
    grey = pixels.normalize(jnp.full_like(original, 128), mean, std)

    def show(tokens: jax.Array, mean: Sequence[float] = mean, std: Sequence[float] = std):
        return pixels.to_bytes(unpatchify(tokens, patch, grid), mean, std)

    return {
        "original": original,
        "masked": show(jnp.where(place, patchify(grey, patch), target)),
        "raw": show(predicted) if relative is None else show(relative, (0.5,), (0.25,)),
        "denormalized": show(predicted),
        "pasted": show(jnp.where(place, predicted, target)),
    }
