"""Feature pyramids of detectors: the simple one of a single map (ViTDet, arXiv 2203.16527, section
3), and lateral connections with a top-down path for encoders with stages (arXiv 1612.03144).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.norm import LayerNorm
from mae_jax.models.pyramid import Upsample
from mae_jax.ops.activations import gelu
from mae_jax.types import UserError

conv_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default


class ConvLayerNorm(nn.Module):
    """A convolution without bias and LayerNorm over channels. The size of the map stays."""

    width: int
    kernel: int
    dtype: Any = jnp.float32
    kernel_init: Any = conv_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] to [B, H, W, width]."""
        x = nn.Conv(
            self.width,
            (self.kernel, self.kernel),
            use_bias=False,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            name="conv",
        )(x)
        return LayerNorm(dtype=self.dtype, name="norm")(x)


class FeaturePyramid(nn.Module):
    """Five levels of equal width, each half as fine as the one before."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """Levels [B, H, W, width], the finest first.

        Args:
            maps: one map [B, h, w, D], whose levels have 4, 2, 1, 1/2 and 1/4 times its size; or
                four, the finest first, each half as fine as the one before.

        Raises:
            UserError: another number of maps, or a map too small for its levels.
        """
        if len(maps) not in (1, 4):
            raise UserError(
                f"a feature pyramid needs 1 or 4 maps, and the encoder has {len(maps)} stages: "
                "choose vitdet, or an encoder of 4 stages"
            )
        if min(maps[-1].shape[1:3]) < 2 and len(maps) == 1:
            raise UserError(
                f"detection needs at least 2 x 2 patches, and these are {maps[0].shape[1]} x "
                f"{maps[0].shape[2]}: use larger images or a smaller patch"
            )
        conv = lambda kernel, name: ConvLayerNorm(self.width, kernel, self.dtype, name=name)
        scaled = self.scaled(maps[0]) if len(maps) == 1 else maps
        levels = [conv(1, f"lateral_{i}")(x) for i, x in enumerate(scaled)]
        if len(maps) > 1:
            for i in reversed(range(len(levels) - 1)):
                rows, columns = levels[i].shape[1:3]
                coarse = levels[i + 1].repeat(2, axis=1).repeat(2, axis=2)
                levels[i] = levels[i] + coarse[:, :rows, :columns]
        levels = [conv(3, f"output_{i}")(x) for i, x in enumerate(levels)]
        return [*levels, levels[-1][:, ::2, ::2]]

    def scaled(self, x: jax.Array) -> list[jax.Array]:
        """A map [B, h, w, D], scaled by 4, 2, 1 and 1/2; the first two have D / 4 and D / 2
        channels.
        """
        half, quarter = x.shape[-1] // 2, x.shape[-1] // 4
        up = lambda width, name: Upsample(self.dtype, width, name=name)
        finest = gelu(LayerNorm(dtype=self.dtype, name="norm_0")(up(half, "up_0a")(x)))
        pooled = nn.max_pool(x, (2, 2), (2, 2))
        return [up(quarter, "up_0b")(finest), up(half, "up_1")(x), x, pooled]
