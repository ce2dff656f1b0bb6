"""A masked autoencoder whose decoder is made of transposed convolutions."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.convnext import upsample_mask
from mae_jax.models.encoder import Encoder
from mae_jax.models.transformer import token_init
from mae_jax.models.unet_decoder import UNetDecoder
from mae_jax.ops.masking import Mask
from mae_jax.ops.patches import grid_of


class MaskedUNet(nn.Module):
    """Encoder and decoder. The mask is an argument, so the network is a plain function."""

    encoder: Encoder
    decoder_width: int
    skips: bool
    """The decoder sees the finer maps of a convolutional encoder too."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, mask: Mask | None) -> jax.Array:
        """Predicts images.

        Args:
            images: [B, *space, C] float.
            mask: which patches the encoder sees, the others become learned tokens in front of the
                decoder; None: it sees all of `images`, in which masked pixels are already zero.

        Returns:
            [B, *space, C] float32.
        """
        encoder, (batch, *space, channels) = self.encoder, images.shape
        grid = grid_of(space, encoder.patch)
        visible = None if mask is None else ~mask.mask.reshape(-1, *grid, 1)
        if self.skips:
            maps, last = encoder.run(images, mask)
            maps = [*maps[:-1], last]
        else:
            tokens = encoder(images, mask)[:, encoder.prefix :]  # [B, K, D]
            if mask is not None and not encoder.mask_tokens:
                # Zeros stand for the masked patches: they are replaced below.
                tokens = jnp.pad(tokens, ((0, 0), (0, mask.masked.shape[1]), (0, 0)))
                tokens = jnp.take_along_axis(tokens, mask.restore[:, :, None], axis=1)
            maps = [tokens.reshape(batch, *grid, encoder.width)]
        filled = [self.with_mask_tokens(x, visible, i) for i, x in enumerate(reversed(maps))]
        decoder = UNetDecoder(
            self.decoder_width, encoder.patch, channels, self.dtype, name="decoder"
        )
        return decoder(filled[0], filled[1:])

    def with_mask_tokens(self, x: jax.Array, visible: jax.Array | None, number: int) -> jax.Array:
        """A map [B, *positions, D] with a learned token where it is not visible."""
        if visible is None:
            return x
        token = self.param(f"mask_token_{number}", token_init, (x.shape[-1],))
        return jnp.where(
            upsample_mask(visible, x.shape[1] // visible.shape[1]), x, token.astype(x.dtype)
        )
