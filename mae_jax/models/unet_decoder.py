"""Networks that make images: from a map of features (a UNet, arXiv 1505.04597, if it is given the
encoder's finer maps too), or from a vector of latent numbers (as DCGAN's generator, 1511.06434).

Normalization is of the channels at each site alone, so that no image depends on the others of its
batch.
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
"""Sites of a generator's first map: above that, its weights are more than all the others."""


class UNetDecoder(nn.Module):
    """Doubles the sides of a map again and again, each time with half the channels."""

    width: int
    """Channels after the first doubling; each further one has half, but not under 16."""
    factor: int
    """How many times larger the sides of the output are: a power of two, 1 included."""
    channels: int
    """Of the output."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, skips: Sequence[jax.Array] = ()) -> jax.Array:
        """Makes images of a map.

        Args:
            x: [B, *sites, D], for images of any number of dimensions.
            skips: maps of the encoder [B, *(sites * s), any width], from coarse to fine, each with
                another s of 1, 2, 4, ... `factor`: added to the map of this size, through a dense
                layer.

        Returns:
            [B, *(sites * factor), channels] float32.

        Raises:
            UserError: a factor that is not a power of two, or a map that has no place.
        """
        if self.factor < 1 or self.factor & (self.factor - 1):
            raise UserError(f"deconv: factor={self.factor} must be a power of two: 1, 2, 4, ...")
        waiting = list(skips)
        for i in range(self.factor.bit_length()):
            if i > 0:
                width = max(self.width >> (i - 1), min(self.width, 16))
                x = Upsample(width, self.dtype, name=f"up_{i}")(x)
                x = LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x)
                x = nn.gelu(x, approximate=False)
            if waiting and waiting[0].shape[1:-1] == x.shape[1:-1]:
                x = x + nn.Dense(x.shape[-1], dtype=self.dtype, name=f"skip_{i}")(waiting.pop(0))
        if waiting:
            raise UserError(
                f"deconv: a map of {waiting[0].shape[1:-1]} sites has no place on the way to "
                f"{x.shape[1:-1]} by steps of 2: give maps from coarse to fine, one of each size"
            )
        around = (3,) * (x.ndim - 2)
        x = nn.Conv(self.channels, around, dtype=self.dtype, name="predict")(x)
        return x.astype(jnp.float32)


class Upsample(nn.Module):
    """A transposed convolution of, in two dimensions, 6 x 6 pixels with a stride of 2, as the
    convolution of sites that it is (arXiv 1609.07009): each site has the four pixels in its place
    made of itself and its eight neighbors. On CPUs that is far faster than to spread a map out and
    fill it with zeros.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, *sites, D] to [B, *(2 sites), width]."""
        grid = x.shape[1:-1]
        inner = 2 ** len(grid) * self.width
        x = nn.Conv(inner, (3,) * len(grid), dtype=self.dtype, name="conv")(x)
        return unpatchify(x.reshape(len(x), -1, inner), 2, grid)  # of [B, L, 2^n width]


class Generator(nn.Module):
    """Makes images of latent vectors."""

    width: int
    """Of the first, coarsest map."""
    size: tuple[int, int]
    """Height and width of the images."""
    channels: int
    """Of the images."""
    dtype: Any = jnp.float32

    @property
    def factor(self) -> int:
        """From the first map to the images: the largest power of two that divides both sides and
        leaves at least 3 sites each, 1 if there is none.
        """
        factor = 1
        while not any(side % (2 * factor) or side // (2 * factor) < 3 for side in self.size):
            factor *= 2
        return factor

    @nn.compact
    def __call__(self, latents: jax.Array) -> jax.Array:
        """Latents [B, Z] to images [B, H, W, C] float32, of any range."""
        rows, columns = (side // self.factor for side in self.size)
        if rows * columns > LARGEST:
            raise UserError(
                f"images of {self.size[0]} x {self.size[1]} cannot be generated from a map of at "
                f"most {LARGEST} sites by doubling its sides: use a size such as 32, 64, 96 or 224"
            )
        x = nn.Dense(rows * columns * self.width, dtype=self.dtype, name="embed")(latents)
        x = x.reshape(len(latents), rows, columns, self.width)
        x = nn.gelu(LayerNorm(dtype=self.dtype, name="norm")(x), approximate=False)
        return UNetDecoder(self.width, self.factor, self.channels, self.dtype, name="deconv")(x)
