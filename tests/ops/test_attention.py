"""Attention and its gradient against sums in float64, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops.attention import attention, check_attention, split
from mae_jax.types import UserError


def example(scale=1.0, queries=5, keys=7, dtype=np.float32):
    """Queries [2, T, 3, 8], keys and values [2, S, 3, 8], and a gradient like the queries."""
    rng = np.random.default_rng(0)
    shapes = [(2, queries, 3, 8), (2, keys, 3, 8), (2, keys, 3, 8), (2, queries, 3, 8)]
    q, k, v, g = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    return scale * q, k, v, g


def by_hand(query, key, value):
    """Every output vector by itself: the mean of the values, weighted by exp(q k / sqrt(d))."""
    out = np.zeros(query.shape)
    for b, t, h in np.ndindex(query.shape[:3]):
        logits = key[b, :, h] @ query[b, t, h] / np.sqrt(query.shape[-1])
        weights = np.exp(logits - logits.max())
        out[b, t, h] = weights @ value[b, :, h] / weights.sum()
    return out


def exact(arrays):
    return [np.asarray(array, np.float64) for array in arrays]


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("queries", [5, 7])
def test_it_is_the_weighted_mean_of_the_values(scale, queries):
    """Logits of a few hundred would overflow an exponential."""
    *inputs, _ = example(scale, queries)
    found = jax.jit(attention)(*inputs)
    np.testing.assert_allclose(found, by_hand(*exact(inputs)), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("queries", [2, 3])
def test_the_gradient_is_that_of_finite_differences(queries):
    *inputs, gradient = example(2.0, queries, 3)
    _, backward = jax.vjp(jax.jit(attention), *inputs)
    arrays, weights = exact(inputs), np.asarray(gradient, np.float64)
    for i, found in enumerate(backward(gradient)):
        expected = np.zeros(found.shape)
        for place in np.ndindex(found.shape):
            moved = []
            for step in (1e-5, -1e-5):
                changed = [array.copy() for array in arrays]
                changed[i][place] += step
                moved.append((by_hand(*changed) * weights).sum())
            expected[place] = (moved[0] - moved[1]) / 2e-5
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=5e-6)


def test_the_gradient_is_finite_where_one_key_has_all_the_weight():
    *inputs, gradient = example(1e4)
    _, backward = jax.vjp(jax.jit(attention), *inputs)
    assert all(np.isfinite(x).all() for x in backward(gradient))


def test_bfloat16_loses_what_its_products_lose_and_no_more():
    """The softmax is float32: exponentials of bfloat16 logits of about 10 would be off by 4%."""
    *inputs, gradient = example(5.0, dtype=jnp.bfloat16)
    found, backward = jax.vjp(attention, *inputs)
    expected, wanted = jax.vjp(attention, *(x.astype(jnp.float32) for x in inputs))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=0.01)
    for mine, theirs in zip(backward(gradient), wanted(gradient.astype(jnp.float32)), strict=True):
        assert mine.dtype == jnp.bfloat16
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(mine.astype(jnp.float32), theirs, atol=0.008 * scale)


def test_split_and_its_gradient():
    x = jnp.arange(24.0).reshape(2, 12)
    parts, backward = jax.vjp(lambda x: split(x, 3), x)
    np.testing.assert_array_equal(parts[1], x[:, 4:8])
    np.testing.assert_array_equal(backward([2 * part for part in parts])[0], 2 * x)


@pytest.mark.parametrize(
    ("kind", "heads", "dtype", "message"),
    [
        ("cudn", 4, "bfloat16", "vit: attention 'cudn' is unknown: choose xla, cudnn"),
        ("cudnn", 4, "float32", "computes in 16 bits and not in float32: set dtype=bfloat16"),
        ("cudnn", 16, "bfloat16", "heads of 8, 16, ... 128 channels and these have 4"),
        ("cudnn", 1, "bfloat16", None),
        ("xla", 16, "float32", None),
    ],
)
def test_what_cannot_be_built_is_refused(kind, heads, dtype, message):
    check = lambda: check_attention("vit", kind, width=64, heads=heads, dtype=dtype)
    if message is None:
        return check()
    with pytest.raises(UserError, match=message):
        check()


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="a GPU has it")
def test_cudnn_needs_a_gpu():
    *inputs, _ = example(dtype=jnp.bfloat16)
    with pytest.raises(UserError, match="attention=cudnn needs an NVIDIA GPU and this is a "):
        attention(*inputs, kind="cudnn")


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
def test_cudnn_agrees():
    *inputs, _ = example(queries=16, keys=16, dtype=jnp.bfloat16)
    found, expected = (attention(*inputs, kind=kind) for kind in ("cudnn", "xla"))
    np.testing.assert_allclose(*(x.astype(jnp.float32) for x in (found, expected)), atol=0.03)
