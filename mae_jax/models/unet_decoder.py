"""Convolutional decoders: from a feature map to an image, with skip connections from the encoder's
finer maps a UNet (arXiv 1505.04597); or from a latent vector, as DCGAN's generator (1511.06434).

LayerNorm over the channels replaces BatchNorm, so that an image does not depend on the others of
its batch.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.norm import LayerNorm
from mae_jax.ops.patches import unpatchify
from mae_jax.types import UserError

LARGEST = 400
"""Most positions of a generator's first map: above, its dense layer outweighs all other layers."""


class UNetDecoder(nn.Module):
    """Upsamples a feature map by 2 repeatedly, each time with half the channels."""

    width: int
    """Channels after the first upsampling; each further one halves them, down to 16."""
    factor: int
    """Ratio of the output's sides to the input's: a power of two, including 1."""
    channels: int
    """Channels of the output."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skips: Sequence[jax.Array] = ()) -> jax.Array:
        """Decodes a feature map to images.

        Args:
            x: [B, *grid, D], with any number of spatial axes.
            skips: feature maps of the encoder [B, *(grid * s), any width], from coarse to fine,
                for distinct scales s among 1, 2, 4, ... `factor`. A dense layer projects each to
                the decoder's width; it is then added to the decoder's map of the same size.

        Returns:
            [B, *(grid * factor), channels] float32.

        Raises:
            UserError: a factor that is not a power of two, or a skip of a size that never occurs.
        """
        if self.factor < 1 or self.factor & (self.factor - 1):
            raise UserError(f"UNetDecoder: factor={self.factor} must be a power of two: 1, 2, ...")
        waiting = list(skips)
        for i in range(self.factor.bit_length()):
            if i > 0:
                width = max(self.width >> (i - 1), min(self.width, 16))
                # [B, *(grid 2^(i-1)), any width] to [B, *(grid 2^i), width]
                x = Upsample(width, self.dtype, name=f"up_{i}")(x)
                x = LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
                x = nn.gelu(x, approximate=False)
            # A sum, not the concatenation of the original UNet, so `x` keeps its width.
            if waiting and waiting[0].shape[1:-1] == x.shape[1:-1]:
                x = x + nn.Dense(x.shape[-1], dtype=self.dtype, name=f"skip_{i}")(waiting.pop(0))
        if waiting:
            raise UserError(
                f"UNetDecoder: a skip map of {waiting[0].shape[1:-1]} positions matches no size on "
                f"the way to {x.shape[1:-1]} by steps of 2: give one per size, from coarse to fine"
            )
        kernel = (3,) * (x.ndim - 2)
        x = nn.Conv(self.channels, kernel, dtype=self.dtype, name="predict")(x)
        return x.astype(jnp.float32)


class Upsample(nn.Module):
    """A transposed convolution of kernel 6 and stride 2, computed as a sub-pixel convolution
    (arXiv 1609.07009): a 3 x 3 convolution predicts, for each position, the 2 x 2 pixels that
    replace it. On CPUs this is much faster than convolving a map that is interleaved with zeros.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, *grid, D] to [B, *(2 grid), width]."""
        grid = x.shape[1:-1]
        inner = 2 ** len(grid) * self.width
        x = nn.Conv(inner, (3,) * len(grid), dtype=self.dtype, name="conv")(x)
        # [B, *grid, 2^n width] to [B, L, 2^n width] to [B, *(2 grid), width], for n spatial axes
        return unpatchify(x.reshape(len(x), -1, inner), 2, grid)


class Generator(nn.Module):
    """Generates images from latent vectors."""

    width: int
    """Channels of the first, coarsest feature map."""
    size: tuple[int, int]
    """Height and width of the images."""
    channels: int
    """Channels of the images."""
    dtype: Any = jnp.float32

    @property
    def factor(self) -> int:
        """Upsampling from the first map to the images: the largest power of two that divides both
        sides and leaves the first map at least 3 positions along each; 1 if there is none.
        """
        factor = 1
        while not any(side % (2 * factor) or side // (2 * factor) < 3 for side in self.size):
            factor *= 2
        return factor

    @nn.compact
    def __call__(self, latents: jax.Array) -> jax.Array:
        """Latents [B, Z] to images [B, H, W, C] float32, of unbounded range.

        Raises:
            UserError: an image size whose first map would exceed `LARGEST`.
        """
        rows, columns = (side // self.factor for side in self.size)
        if rows * columns > LARGEST:
            raise UserError(
                f"images of {self.size[0]} x {self.size[1]} cannot be generated from a map of at "
                f"most {LARGEST} positions by doubling its sides: use a size such as 32, 64 or 224"
            )
        x = nn.Dense(rows * columns * self.width, dtype=self.dtype, name="embed")(latents)
        x = x.reshape(len(latents), rows, columns, self.width)  # of [B, rows * columns * width]
        x = nn.gelu(LayerNorm(dtype=self.dtype, name="norm")(x), approximate=False)
        return UNetDecoder(self.width, self.factor, self.channels, self.dtype, name="deconv")(x)
