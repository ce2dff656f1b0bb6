"""A masked autoencoder with a decoder of transposed convolutions, and optional skip connections."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.encoder import Encoder
from mae_jax.models.transformer import token_init
from mae_jax.models.unet_decoder import UNetDecoder
from mae_jax.ops.masking import Mask, upsample_mask
from mae_jax.ops.patches import grid_of


class MaskedUNet(nn.Module):
    """Encoder and decoder. The mask is an argument, so the network itself is deterministic."""

    encoder: Encoder
    decoder_width: int
    """Channels after the decoder's first upsampling."""
    skips: bool
    """Skip connections: the decoder also reads the finer feature maps of a ConvNeXt (a UNet)."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, mask: Mask | None) -> jax.Array:
        """Predicts images.

        Args:
            images: [B, *space, C] float.
            mask: which patches the encoder sees; mask tokens replace the others before the decoder.
                None: the encoder sees all of `images`, whose masked pixels are already zero.

        Returns:
            [B, *space, C] float32.
        """
        encoder, (batch, *space, channels) = self.encoder, images.shape
        grid = grid_of(space, encoder.patch)
        visible = None if mask is None else ~mask.mask.reshape(-1, *grid, 1)  # [B, *grid, 1]
        if self.skips:
            maps, last, _ = encoder.run(images, mask)
            maps = [*maps[:-1], last]
        else:
            tokens = encoder(images, mask)[:, encoder.prefix :]  # [B, K, D]
            if mask is not None and not encoder.mask_tokens:
                # [B, L, D], unshuffled. Mask tokens replace the zeros of the masked patches below.
                # Not jnp.pad, which needs their number: exports leave it open.
                zeros = jnp.zeros((*mask.masked.shape, tokens.shape[-1]), tokens.dtype)
                tokens = jnp.concatenate([tokens, zeros], axis=1)
                tokens = jnp.take_along_axis(tokens, mask.restore[:, :, None], axis=1)
            maps = [tokens.reshape(batch, *grid, encoder.width)]  # [B, *grid, D]
        filled = [self.with_mask_tokens(x, visible, i) for i, x in enumerate(reversed(maps))]
        decoder = UNetDecoder(
            self.decoder_width, encoder.patch, channels, self.dtype, name="decoder"
        )
        return decoder(filled[0], filled[1:])

    def with_mask_tokens(self, x: jax.Array, visible: jax.Array | None, number: int) -> jax.Array:
        """Replaces masked positions of a feature map [B, *positions, D] by its own mask token."""
        if visible is None:
            return x
        token = self.param(f"mask_token_{number}", token_init, (x.shape[-1],))
        return jnp.where(
            upsample_mask(visible, x.shape[1] // visible.shape[1]), x, token.astype(x.dtype)
        )
