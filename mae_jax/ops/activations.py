"""The exact Gaussian error linear unit (arXiv 1606.08415), with a gradient of its own that needs
nothing but the input: the generic one keeps two more arrays of the widest layer.
"""

import math

import jax
import jax.numpy as jnp


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution function of x, for any shape, within 1e-7 times |x|."""
    wide = x.astype(jnp.float32)
    return (wide * (0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


def _backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    """The derivative is the distribution function plus x times the density.

    The error function is odd. Written by -x it is not the one of the forward pass, which XLA would
    keep for here, as large as x itself, where it computes it once for both.
    """
    wide = x.astype(jnp.float32)
    distribution = 0.5 - 0.5 * jax.lax.erf(wide * -math.sqrt(0.5))
    density = jnp.exp(-0.5 * wide * wide) * math.sqrt(0.5 / math.pi)
    return ((gradient * (distribution + wide * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _backward)
