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
        Label -> [B, *space, C] uint8: the original; with masked patches gray; the predicted pixels,
        for `relative` below the network's own output, gray plus a quarter of the range per standard
        deviation; and with the visible patches in place.
    """
    grid, place = grid_of(original.shape[1:-1], patch), masked[:, :, None]
    target = patchify(pixels.normalize(original, mean, std), patch)
    gray = pixels.normalize(jnp.full_like(original, 128), mean, std)

    def show(tokens: jax.Array, mean: Sequence[float] = mean, std: Sequence[float] = std):
        return pixels.to_bytes(unpatchify(tokens, patch, grid), mean, std)

    outputs = {"network output": show(predicted)}
    if relative is not None:
        outputs = {
            "network output, raw": show(relative, (0.5,), (0.25,)),
            "network output, with the TRUE mean and deviation of each patch": show(predicted),
        }
    return {
        "original": original,
        "masked (what the encoder sees)": show(jnp.where(place, patchify(gray, patch), target)),
        **outputs,
        "the same, visible patches pasted in": show(jnp.where(place, predicted, target)),
    }
