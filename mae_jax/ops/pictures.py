"""Pictures of masked images and their reconstructions, as in figure 2 of arXiv 2111.06377."""

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
    target: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """Draws predictions next to their originals.

    Args:
        original: [B, *space, C] uint8.
        predicted: [B, L, P] predicted pixels of all patches, normalized like the network's inputs.
        masked: [B, L] bool.
        patch: side of a patch in pixels, or one side for each axis.
        mean, std: of the pixels in [0, 1], which normalized the network's inputs.
        relative: [B, L, P] the raw output, for networks that predict patches normalized by their
            own mean and standard deviation. Drawn as gray plus a quarter of the range per standard
            deviation.
        target: [B, L, P] the pixels to predict, if they are not those of the original, normalized
            like the network's inputs.

    Returns:
        Label -> pictures [B, *space, C] uint8: the original; the masked image; the target, if it
        differs from the original; the network's output; and the prediction with the visible
        patches pasted in.
    """
    grid, where = grid_of(original.shape[1:-1], patch), masked[:, :, None]  # [B, L, 1]
    true = patchify(pixels.normalize(original, mean, std), patch)
    gray = pixels.normalize(jnp.full_like(original, 128), mean, std)

    # [B, L, P] to [B, *space, C] uint8
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
        "masked (what the encoder sees)": show(jnp.where(where, patchify(gray, patch), true)),
        **({} if target is None else {"target": show(target)}),
        **outputs,
        "the same, visible patches pasted in": show(jnp.where(where, predicted, true)),
    }
