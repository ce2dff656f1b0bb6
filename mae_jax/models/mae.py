"""The masked autoencoder (arXiv 2111.06377): an encoder of visible patches, and a light transformer
decoder that predicts every patch from the encoded ones and learned mask tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.encoder import Encoder
from mae_jax.models.norm import LayerNorm
from mae_jax.models.vit import block_class, dense_init, token_init
from mae_jax.ops.gather import take_tokens
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of
from mae_jax.ops.posemb import sincos_2d


class Decoder(nn.Module):
    """Transformer decoder; the paper's has width 512, depth 8 and 16 heads for every encoder."""

    width: int = 512
    depth: int = 8
    heads: int = 16
    dtype: Any = jnp.float32
    attention: str = "auto"
    remat: str = "none"
    gather: str = "take"

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        mask: Mask | None,
        grid: tuple[int, int],
        values: int,
        hidden_only: bool = False,
    ) -> jax.Array:
        """Predicts the pixels of every patch, or of the hidden ones alone.

        The blocks see [class token, visible, hidden]: attention does not mind the order, so that
        only positions are taken by index. What the last block makes of visible tokens would not
        reach the hidden ones any more: there they are keys and values alone.

        Args:
            tokens: [B, 1 + K, D] from the encoder, the class token first.
            mask: the mask that the encoder was given; None: `tokens` are whole and in image order.
            grid: rows and columns of patches.
            values: numbers to predict for each patch.
            hidden_only: needs a mask.

        Returns:
            [B, L, values] in image order; with `hidden_only`, [B, L - K, values] in the order of
            `mask.hidden`.
        """
        x = nn.Dense(self.width, kernel_init=dense_init, dtype=self.dtype, name="embed")(tokens)
        positions = jnp.asarray(sincos_2d(grid, self.width), x.dtype)
        cls_token, x = x[:, :1], x[:, 1:]
        visible = x.shape[1]
        if mask is not None:
            token = self.param("mask_token", token_init, (1, 1, self.width)).astype(x.dtype)
            order = jnp.concatenate([mask.keep, mask.hidden], axis=1)
            token = jnp.broadcast_to(token, (x.shape[0], order.shape[1] - visible, self.width))
            x = jnp.concatenate([x, token], axis=1)
            positions = take_tokens(positions, order, kind=self.gather)
        x = jnp.concatenate([cls_token, x + positions], axis=1)
        block = block_class(self.remat)
        for i in range(self.depth):
            last = i == self.depth - 1
            one = block(self.heads, dtype=self.dtype, attention=self.attention, name=f"block_{i}")
            x = one(x, False, 1 + visible * hidden_only if last else 0)
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        x = nn.Dense(values, kernel_init=dense_init, dtype=self.dtype, name="predict")(x)
        if mask is None or hidden_only:
            return x
        return take_tokens(x, mask.restore, kind=self.gather)


class MAE(nn.Module):
    """Encoder and decoder. The mask is an argument, so the network is a plain function."""

    encoder: Encoder
    decoder: Decoder

    def __call__(
        self, images: jax.Array, mask: Mask, hidden_only: bool = False, normalize=None
    ) -> jax.Array:
        """Predicts patches.

        Args:
            images: [B, H, W, C] float, or uint8 with `normalize`.
            mask: which patches the encoder sees.
            hidden_only: not those that it sees.
            normalize: `images` are uint8, and this makes floats of them, `ops.pixels.normalize`
                with its mean and std. A ViT takes the visible patches as bytes and normalizes
                these alone.

        Returns:
            [B, L, patch * patch * C] in image order, or [B, L - K, patch * patch * C] in the order
            of `mask.hidden`.
        """
        patch = self.encoder.patch
        tokens = self.encoder(images, mask, normalize=normalize)
        grid = grid_of(images.shape[1:3], patch)
        values = patch * patch * images.shape[-1]
        if not self.encoder.mask_tokens:
            return self.decoder(tokens, mask, grid, values, hidden_only)
        prediction = self.decoder(tokens, None, grid, values)
        if not hidden_only:
            return prediction
        return take_tokens(prediction, mask.hidden, kind=self.decoder.gather)

    def encode(self, images: jax.Array) -> jax.Array:
        """Tokens [B, 1 + L, D] of whole images [B, H, W, C]: nothing is masked or shuffled."""
        return self.encoder(images)
