"""Layer normalization (arXiv 1607.06450) as a module, shared by all networks."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mae_jax.ops.norm import EPSILON, layer_norm


class LayerNorm(nn.Module):
    """Layer normalization over the last axis, with float32 statistics."""

    dtype: Any = jnp.float32
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] to [..., D]."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, bias, self.dtype, self.epsilon)  # parameters stay float32
