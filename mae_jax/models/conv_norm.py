"""Convolutions with BatchNorm, of which the heads of dense prediction consist."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

conv_init = nn.initializers.he_normal()


def batch_norm(train: bool, name: str, dtype: Any = jnp.float32, **options: Any) -> nn.BatchNorm:
    """BatchNorm over the global batch (arXiv 1502.03167): under jit, the mean over an axis that is
    split over devices is that of all of them. Running statistics are in the collection
    'batch_stats'.

    Args:
        train: use the statistics of the batch, and move the running ones.
        name: of the submodule.
        dtype: of its output; statistics are float32.
        options: `use_scale` and `use_bias`.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        name=name,
        **options,
    )


class ConvNorm(nn.Module):
    """A convolution without bias, BatchNorm and ReLU. The size of the map stays."""

    width: int
    kernel: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """[B, H, W, C] to [B, H, W, width]."""
        x = nn.Conv(
            self.width,
            (self.kernel, self.kernel),
            use_bias=False,
            kernel_init=conv_init,
            dtype=self.dtype,
            name="conv",
        )(x)
        return nn.relu(batch_norm(train, "norm", self.dtype)(x))
