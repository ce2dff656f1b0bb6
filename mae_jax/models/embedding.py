"""The input of the blocks of a vision transformer (arXiv 2010.11929): embedded patches with their
positions, and class tokens.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.positions import extent_of, positions
from mae_jax.models.transformer import dense_init, token_init
from mae_jax.ops import gather as gathers
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of, patch_sides, patchify


def embedded(vit: Any, images: jax.Array, mask: Mask | None, normalize) -> jax.Array:
    """The input of the first block, [B, prefix + K, D]. Call it inside of an `nn.compact` of `vit`,
    a `ViT`, to which the parameters belong; the other arguments are those of `Encoder`.
    """
    patches = patchify(images, vit.patch)  # [B, L, prod(patch) * C]
    grid, sides = grid_of(images.shape[1:-1], vit.patch), patch_sides(vit.patch, images.ndim - 2)
    learned, extent = vit.learned_positions, extent_of(vit.spacing, sides)
    first, places = positions(vit, grid, vit.prefix, learned=learned, extent=extent)
    # Visible patches are gathered before the embedding, which then skips the masked ones.
    if mask is not None and not vit.mask_tokens:
        patches = gathers.take_tokens(patches, mask.keep, kind=vit.gather)  # [B, K, ...]
        places = gathers.take_tokens(places, mask.keep, kind=vit.gather)  # [B, K, D]
    if normalize is not None:
        patches = normalize(patches, pixels=math.prod(sides))
    # A dense layer on flat patches equals the usual convolution of stride `patch`. [B, K, D]
    x = nn.Dense(vit.width, kernel_init=dense_init, dtype=vit.dtype, name="embed")(patches)
    if mask is not None and vit.mask_tokens:
        token = vit.param("mask_token", token_init, (1, 1, vit.width))
        x = jnp.where(mask.mask[:, :, None], token.astype(x.dtype), x)  # [B, L, D]
    x = x + places.astype(x.dtype)
    if vit.prefix:
        tokens = vit.param("cls_token", token_init, (1, vit.prefix, vit.width)) + first
        tokens = jnp.broadcast_to(tokens.astype(x.dtype), (x.shape[0], *tokens.shape[1:]))
        x = jnp.concatenate([tokens, x], axis=1)  # [B, prefix + K, D]
    return x
