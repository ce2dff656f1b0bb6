"""Layer normalization and its gradient against float64, and against Flax' own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mae_jax.models.norm import LayerNorm
from mae_jax.ops.norm import layer_norm


def example(mean, dtype=np.float32):
    """x [2, 3, 16], scale and bias [16], and a gradient like x."""
    rng = np.random.default_rng(0)
    shapes = [(2, 3, 16), (16,), (16,), (2, 3, 16)]
    x, scale, bias, gradient = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return jnp.asarray(x + mean, dtype), scale, bias, gradient


def by_hand(x, scale, bias):
    """Row by row, in float64."""
    rows = [(row - row.mean()) / np.sqrt(row.var() + 1e-6) for row in x.reshape(-1, x.shape[-1])]
    return np.reshape(rows, x.shape) * scale + bias


@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_every_row_is_centerd_and_scaled(mean):
    """The mean of squares less the square of the mean would lose four digits at 100."""
    *inputs, _ = example(mean)
    expected = by_hand(*(np.asarray(array, np.float64) for array in inputs))
    np.testing.assert_allclose(jax.jit(layer_norm)(*inputs), expected, atol=2e-6 * (1 + mean))


@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_the_gradient_is_that_of_finite_differences(mean):
    *inputs, gradient = example(mean)
    _, backward = jax.vjp(jax.jit(layer_norm), *inputs)
    arrays = [np.asarray(array, np.float64) for array in inputs]
    for i, found in enumerate(backward(gradient)):
        expected = np.zeros(found.shape)
        for place in np.ndindex(found.shape):
            moved = []
            for step in (1e-5, -1e-5):
                changed = [array.copy() for array in arrays]
                changed[i][place] += step
                moved.append((by_hand(*changed) * gradient).sum())
            expected[place] = (moved[0] - moved[1]) / 2e-5
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-5 * (1 + mean))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_module_is_the_one_of_flax(dtype):
    x, *_, gradient = example(0.5, dtype)
    ours, theirs = LayerNorm(dtype), nn.LayerNorm(1e-6, dtype=dtype)
    params = {"params": dict(zip(("scale", "bias"), example(0.0)[1:3], strict=True))}
    same = lambda a, b: jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), a, b)
    fresh = ours.init(jax.random.key(0), x), theirs.init(jax.random.key(0), x)
    assert jax.tree.all(same(*fresh))
    (y, back), (other, expected) = (
        jax.vjp(lambda p, x, module=module: module.apply(p, x), params, x)
        for module in (ours, theirs)
    )
    assert jax.tree.all(same(y, other))
    tolerance = 1e-5 if dtype == "float32" else 0.02
    close = lambda a, b: np.testing.assert_allclose(
        a.astype(jnp.float32), b.astype(jnp.float32), atol=tolerance * 4, rtol=tolerance
    )
    close(y, other)
    for pair in zip(back(gradient.astype(dtype)), expected(gradient.astype(dtype)), strict=True):
        assert jax.tree.all(same(*pair))
        jax.tree.map(close, *pair)
