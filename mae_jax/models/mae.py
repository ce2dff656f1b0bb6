"""The masked autoencoder (arXiv 2111.06377): an encoder of visible patches, and a light transformer
decoder that predicts every patch from the encoded ones and learned mask tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.encoder import Encoder
from mae_jax.models.vit import Block, dense_init, token_init
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of
from mae_jax.ops.posemb import sincos_2d


class Decoder(nn.Module):
    """Transformer decoder; the paper's has width 512, depth 8 and 16 heads for every encoder."""

    width: int = 512
    depth: int = 8
    heads: int = 16
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: jax.Array, mask: Mask | None, grid: tuple[int, int], values: int
    ) -> jax.Array:
        """Predicts the pixels of every patch.

        Args:
            tokens: [B, 1 + K, D] from the encoder, the class token first.
            mask: the mask that the encoder was given; None: `tokens` are whole and in image order.
            grid: rows and columns of patches.
            values: numbers to predict for each patch.

        Returns:
            [B, L, values].
        """
        x = nn.Dense(self.width, kernel_init=dense_init, dtype=self.dtype, name="embed")(tokens)
        cls_token, x = x[:, :1], x[:, 1:]
        if mask is not None:
            token = self.param("mask_token", token_init, (1, 1, self.width)).astype(x.dtype)
            hidden = mask.restore.shape[1] - x.shape[1]
            token = jnp.broadcast_to(token, (x.shape[0], hidden, self.width))
            x = jnp.concatenate([x, token], axis=1)
            x = jnp.take_along_axis(x, mask.restore[:, :, None], axis=1)
        x = x + jnp.asarray(sincos_2d(grid, self.width), x.dtype)
        x = jnp.concatenate([cls_token, x], axis=1)
        for i in range(self.depth):
            x = Block(self.heads, dtype=self.dtype, name=f"block_{i}")(x)
        x = nn.LayerNorm(1e-6, dtype=self.dtype, name="norm")(x)
        x = nn.Dense(values, kernel_init=dense_init, dtype=self.dtype, name="predict")(x)
        return x[:, 1:]


class MAE(nn.Module):
    """Encoder and decoder. The mask is an argument, so the network is a plain function."""

    encoder: Encoder
    decoder: Decoder

    def __call__(self, images: jax.Array, mask: Mask) -> jax.Array:
        """Predicted patches [B, L, patch * patch * C] of images [B, H, W, C]."""
        patch = self.encoder.patch
        tokens = self.encoder(images, mask)
        in_order = self.encoder.mask_tokens
        return self.decoder(
            tokens,
            None if in_order else mask,
            grid_of(images.shape[1:3], patch),
            patch * patch * images.shape[-1],
        )

    def encode(self, images: jax.Array) -> jax.Array:
        """Tokens [B, 1 + L, D] of whole images [B, H, W, C]: nothing is masked or shuffled."""
        return self.encoder(images)
