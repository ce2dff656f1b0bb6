"""What stands on an encoder while it learns without labels: the projectors and predictors of SimCLR
(arXiv 2002.05709) and MoCo v3 (arXiv 2104.02057).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.models.transformer import dense_init
from mae_jax.types import UserError


class BatchNorm(nn.Module):
    """Normalizes each feature over the batch, which under jit is the global one (arXiv 1502.03167).
    It keeps no running statistics: heads are thrown away after training, and nothing is ever
    predicted with them.
    """

    use_scale: bool = True
    use_bias: bool = True
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, D] to [B, D] float32."""
        x = x.astype(jnp.float32)
        x = (x - x.mean(axis=0)) * jax.lax.rsqrt(x.var(axis=0) + self.epsilon)
        if self.use_scale:
            x = x * self.param("scale", nn.initializers.ones, x.shape[-1:])
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return x


class ProjectionHead(nn.Module):
    """Linear layers without biases, each followed by BatchNorm, and all but the last by ReLU."""

    widths: tuple[int, ...]
    """Of the layers, the output's last."""
    last_scale: bool = False
    """Whether the last BatchNorm has a scale; it has no bias."""
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
            x = nn.relu(x) if i < last else x
        return x


def check_widths(name: str, widths: tuple[int, ...]) -> None:
    """Raises UserError unless a head can have layers of these widths."""
    if not widths or not all(isinstance(width, int) and width > 0 for width in widths):
        raise UserError(f"{name}={widths}: give the positive widths of its layers, e.g. (512, 128)")
