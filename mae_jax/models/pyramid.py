"""A feature pyramid of a plain ViT, as BEiT's UperNet has it (arXiv 2106.08254, A.4): four inner
maps of one size, scaled up by 4 and 2, left as they are, and scaled down by 2.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.conv_norm import batch_norm
from mae_jax.models.transformer import dense_init
from mae_jax.ops.activations import gelu
from mae_jax.types import UserError


class Upsample(nn.Module):
    """A transposed convolution of 2 x 2 with stride 2: each site becomes four."""

    dtype: Any = jnp.float32
    width: int | None = None
    """Channels of the output; None: those of the input."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, D] to [B, 2 H, 2 W, C]."""
        batch, height, width, channels = x.shape
        channels = self.width or channels
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        dense = nn.Dense(
            4 * channels, use_bias=False, kernel_init=dense_init, dtype=self.dtype, name="fc"
        )
        # [B, H, W, row, column, C] to [B, H, row, W, column, C]
        x = dense(x).reshape(batch, height, width, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, 2 * height, 2 * width, channels)  # [B, 2 H, 2 W, C]
        return x + bias.astype(x.dtype)


class Pyramid(nn.Module):
    """The neck between encoder and head."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], train: bool = False) -> list[jax.Array]:
        """Four maps [B, h, w, D], earlier blocks first, to maps of 4, 2, 1 and 1/2 times the size.

        Raises:
            UserError: a map that is too small to be halved.
        """
        first, second, third, fourth = maps
        if min(fourth.shape[1:3]) < 2:
            raise UserError(
                f"the head 'upernet' needs at least 2 x 2 patches, and these are "
                f"{fourth.shape[1]} x {fourth.shape[2]}: use larger images or a smaller patch"
            )
        first = Upsample(self.dtype, name="up_0a")(first)
        first = gelu(batch_norm(train, "norm_0", self.dtype)(first))
        first = Upsample(self.dtype, name="up_0b")(first)
        second = Upsample(self.dtype, name="up_1")(second)
        return [first, second, third, nn.max_pool(fourth, (2, 2), (2, 2))]
