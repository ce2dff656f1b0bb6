"""GELU against the error function of the standard library."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.ops.activations import gelu

POINTS = np.linspace(-9, 9, 721).astype(np.float32)


def test_gelu_is_x_times_the_normal_distribution_function():
    """The tanh form is off by 5e-4."""
    expected = [float(x) * math.erfc(-float(x) / math.sqrt(2)) / 2 for x in POINTS]
    np.testing.assert_allclose(jax.jit(gelu)(POINTS), expected, rtol=1e-6, atol=1e-6)


def test_its_gradient():
    def derivative(x):
        density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return math.erfc(-x / math.sqrt(2)) / 2 + x * density

    found = jax.jit(jax.grad(lambda x: (3 * gelu(x)).sum()))(POINTS)
    np.testing.assert_allclose(found, [3 * derivative(float(x)) for x in POINTS], atol=2e-6)


def test_bfloat16_is_rounded_once():
    x = jnp.asarray(POINTS, jnp.bfloat16)
    found, backward = jax.vjp(gelu, x)
    assert found.dtype == backward(x)[0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, gelu(x.astype(jnp.float32)).astype(jnp.bfloat16))
