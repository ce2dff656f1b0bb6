"""Projection and prediction heads for contrastive learning, as in SimCLR (arXiv 2002.05709) and
MoCo v3 (arXiv 2104.02057).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.transformer import dense_init
from mae_jax.types import UserError


class BatchNorm(nn.Module):
    """Batch normalization (arXiv 1502.03167) over the global batch, across all devices under jit.

    It keeps no running statistics, because the heads are discarded after pre-training and never
    used for inference.
    """

    use_scale: bool = True
    use_bias: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, D] to [B, D] float32."""
        x = x.astype(jnp.float32)
        # Under jit, means over the sharded axis B are global: XLA adds the all-reduce.
        x = (x - x.mean(axis=0)) * jax.lax.rsqrt(x.var(axis=0) + self.epsilon)
        if self.use_scale:
            x = x * self.param("scale", nn.initializers.ones, x.shape[-1:])
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return x


class ProjectionHead(nn.Module):
    """Linear layers without bias, each followed by BatchNorm and, except for the last, by ReLU."""

    widths: tuple[int, ...]
    """Output widths of the layers."""
    last_scale: bool = False
    """Whether the last BatchNorm has a learned scale; it never has a bias."""
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features [B, D] to [B, widths[-1]] float32."""
        last = len(self.widths) - 1
        for i, width in enumerate(self.widths):
            x = nn.Dense(
                width, use_bias=False, kernel_init=dense_init, dtype=self.dtype, name=f"fc{i}"
            )(x)
            x = BatchNorm(i < last or self.last_scale, i < last, name=f"norm{i}")(x)
            x = nn.relu(x) if i < last else x  # [B, widths[i]]
        return x


def check_widths(name: str, widths: tuple[int, ...]) -> None:
    """Raises UserError unless these are valid layer widths of a head called `name`."""
    if not widths or not all(isinstance(width, int) and width > 0 for width in widths):
        raise UserError(f"{name}={widths}: give the positive widths of its layers, e.g. (512, 128)")
