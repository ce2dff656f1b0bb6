"""Tokens by index: both ways give the same numbers and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops import masking
from mae_jax.ops.gather import KINDS, take_tokens


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True])
def test_tokens_and_gradients(kind, shared):
    """Index 2 is taken twice by the first example: its gradients add up."""
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(5, 3) if shared else (2, 5, 3)).astype(np.float32)
    index = np.array([[4, 2, 2], [0, 1, 4]], np.int32)
    weights = rng.normal(size=(2, 3, 3)).astype(np.float32)
    found, backward = jax.vjp(lambda x: take_tokens(x, index, kind=kind), tokens)
    gradient = np.zeros_like(tokens)
    for b, i in np.ndindex(index.shape):
        row = index[b, i] if shared else (b, index[b, i])
        np.testing.assert_array_equal(found[b, i], tokens[row])
        gradient[row] += weights[b, i]
    np.testing.assert_allclose(backward(jnp.asarray(weights))[0], gradient, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_stays_what_it_is(kind):
    tokens = np.arange(256, dtype=np.uint8).reshape(2, 32, 4)
    index = np.stack([np.arange(32)[::-1], np.arange(32)])
    found = jax.jit(functools.partial(take_tokens, kind=kind))(tokens, index)
    assert found.dtype == jnp.uint8
    np.testing.assert_array_equal(found, np.stack([tokens[0, ::-1], tokens[1]]))


def test_hidden_patches_stand_behind_the_visible_ones():
    mask = masking.from_scores(jax.random.uniform(jax.random.key(0), (3, 20)), 8)
    assert (mask.masked.shape, mask.masked.dtype) == ((3, 12), jnp.int32)
    for keep, hidden, restore, hides in zip(*map(np.asarray, mask)):
        assert set(hidden) == set(np.flatnonzero(hides))
        np.testing.assert_array_equal(np.concatenate([keep, hidden])[restore], np.arange(20))
