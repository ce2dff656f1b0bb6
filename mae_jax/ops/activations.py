"""The exact Gaussian error linear unit (arXiv 1606.08415), with a gradient of its own that needs
nothing but the input: the generic one keeps two more arrays of the widest layer.
"""

import math

import jax
import jax.numpy as jnp


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x, for any shape, within 1e-7 times |x|."""
    return (x * _distribution(x)).astype(x.dtype)


def _distribution(x: jax.Array) -> jax.Array:
    """(1 + erf(x / sqrt(2))) / 2, float32."""
    return 0.5 + 0.5 * jax.lax.erf(x.astype(jnp.float32) * math.sqrt(0.5))


def _backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    """The derivative is the distribution function plus x times the density."""
    wide = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * wide * wide) * math.sqrt(0.5 / math.pi)
    return ((gradient * (_distribution(x) + wide * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _backward)
