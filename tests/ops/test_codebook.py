"""Vector quantization against float64 numpy: nearest codes, their gradient, the moving averages of
the codebook and its use.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops import codebook

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(3, 4, 5)).astype(np.float32)  # [B, L, Z]
CODES = RNG.normal(size=(7, 5)).astype(np.float32)  # [K, Z]


def nearest_by_loops(vectors, codes):
    """Index of the nearest code of each row, from all distances in float64."""
    rows = np.asarray(vectors, np.float64).reshape(-1, codes.shape[1])
    distances = [[np.sqrt(((row - code) ** 2).sum()) for code in codes] for row in rows]
    return np.argmin(distances, axis=1)


def test_codes_are_the_nearest_and_gradients_pass_through_them():
    weights = RNG.normal(size=VECTORS.shape)

    @jax.jit
    def everything(vectors, codes):
        index = codebook.nearest(vectors, codes)
        through = lambda x: codebook.straight_through(x, codes[index])
        loss = lambda x: jnp.sum(weights * jnp.square(through(x)))
        return index, through(vectors), jax.grad(loss)(vectors)

    index, through, gradient = everything(VECTORS, CODES)
    expected = nearest_by_loops(VECTORS, CODES).reshape(3, 4)
    assert index.dtype == np.int32 and len(np.unique(expected)) > 3
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(through, CODES[expected], atol=1e-6)
    # The derivative at the quantized vectors, as if quantization were the identity.
    np.testing.assert_allclose(gradient, 2 * weights * CODES[expected], rtol=1e-4, atol=1e-5)


def test_codes_are_moving_averages_of_their_vectors():
    """Appendix A.1 of the paper: N = decay N + (1 - decay) n, m = decay m + (1 - decay) sum, and
    e = m / N, with the averages of numbers and sums stored.
    """
    decay, rng = 0.9, np.random.default_rng(1)
    counts = np.array([1.0, 2.0, 0.5, 1.0, 1.0, 3.0, 0.0])
    codes, sums = CODES.astype(np.float64), counts[:, None] * CODES
    found = CODES, counts.astype(np.float32)
    move = jax.jit(
        lambda codes, counts, vectors, index: codebook.averaged(
            codes, counts, *codebook.statistics(vectors, index, 7), decay
        )
    )
    for _ in range(4):
        vectors, index = rng.normal(size=(12, 5)).astype(np.float32), rng.integers(0, 6, 12)
        members = [vectors[index == k].astype(np.float64) for k in range(7)]
        counts = decay * counts + (1 - decay) * np.array([len(rows) for rows in members])
        sums = decay * sums + (1 - decay) * np.stack([rows.sum(axis=0) for rows in members])
        codes = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1e-9)[:, None], codes)
        found = move(*found, vectors, index)
        np.testing.assert_allclose(found[1], counts, rtol=1e-5)
        np.testing.assert_allclose(found[0], codes, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[0][6], CODES[6])  # never used, and its count is 0


def test_use_of_the_codebook():
    index = np.array([[0, 0, 0, 3], [5, 5, 3, 0]])
    shares = np.array([4, 2, 2]) / 8
    found = jax.jit(lambda x: codebook.usage(x, 7))(index)
    entropy = -(shares * np.log(shares)).sum()
    np.testing.assert_allclose(found["perplexity"], np.exp(entropy), rtol=1e-6)
    np.testing.assert_allclose(found["codes_used"], 3 / 7, rtol=1e-6)


@pytest.mark.parametrize(("share", "expected"), [(-1.0, 0), (0.0, 1), (0.1, 2)])
def test_dead_codes_become_vectors_of_the_batch(share, expected):
    rows = VECTORS.reshape(12, 5)
    revive = jax.jit(lambda key, counts: codebook.revived(key, CODES, counts, rows, share))
    counts = np.array([0, 4, 0.1, 0.5, 9, 0.4, 7], np.float32)  # of mean 3
    dead = counts <= share * 3
    assert dead.sum() == expected
    codes, moved = revive(jax.random.key(3), counts)
    np.testing.assert_array_equal(codes[~dead], CODES[~dead])
    np.testing.assert_allclose(moved, np.where(dead, 3, counts), rtol=1e-6)
    assert all((row == rows).all(axis=1).any() for row in np.asarray(codes)[dead])
    np.testing.assert_array_equal(codes, revive(jax.random.key(3), counts)[0])
    # At the start, all codes; which ones depends on the key.
    first, moved = revive(jax.random.key(3), np.zeros(7, np.float32))
    np.testing.assert_array_equal(moved, np.ones(7))
    assert all((row == rows).all(axis=1).any() for row in np.asarray(first))
    assert (first != revive(jax.random.key(4), np.zeros(7, np.float32))[0]).any()
