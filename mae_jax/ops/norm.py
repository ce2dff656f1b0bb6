"""Layer normalization (arXiv 1607.06450) with a gradient of its own that needs the input and two
numbers a row: the generic one keeps three arrays of the input's size.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

EPSILON = 1e-6
"""What norms, and a probe's BatchNorm, add to the variance."""


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, dtype: Any = jnp.float32
) -> jax.Array:
    """(x - mean) / sqrt(variance + EPSILON) * scale + bias, over the last axis, in float32.

    Args:
        x: [..., D].
        scale, bias: [D] float32.
        dtype: of the result, [..., D].
    """
    return _forward(x, scale, bias, dtype)[0]


def _forward(x, scale, bias, dtype):
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
    inverse = jax.lax.rsqrt(variance + EPSILON)
    y = (wide - mean) * inverse * scale + bias
    return y.astype(dtype), (x, scale, mean, inverse)


def _backward(dtype, saved, gradient):
    """For x, n = x normalized, g = gradient * scale: (g - mean(g) - n mean(g n)) / deviation.

    No array as large as x is made of x or of the scale alone: XLA on CPUs would make it early and
    keep it for here. So it is mean - x, which the forward pass has not, and a product with scale.
    """
    x, scale, mean, inverse = saved
    gradient = gradient.astype(jnp.float32)
    opposite = mean - x.astype(jnp.float32)
    along = gradient * opposite * inverse
    average = lambda y: jnp.matmul(y, scale, precision="highest")[..., None] / x.shape[-1]
    d_x = (gradient * scale - average(gradient) - opposite * average(along) * inverse) * inverse
    rows = tuple(range(x.ndim - 1))
    return d_x.astype(x.dtype), -along.sum(axis=rows), gradient.sum(axis=rows)


layer_norm.defvjp(_forward, _backward)
