"""Masks of texts with padding, and the loss of masked tokens, against float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops.texts import cross_entropy, draw, whole

LENGTH, ROWS = 7, 2000


@pytest.fixture(scope="module", params=[0.15, 0.5, 0.75])
def drawn(request):
    """Masks of ROWS texts of each number of tokens from 0 to LENGTH: ratio, counts, arrays."""
    counts = np.repeat(np.arange(LENGTH + 1), ROWS)
    valid = np.arange(LENGTH) < counts[:, None]
    masks = jax.jit(draw, static_argnums=2)(jax.random.key(0), valid, request.param)
    seen = jnp.pad(masks.seen, ((0, 0), (0, LENGTH - masks.seen.shape[1])))
    rows = (masks.order, masks.unsort(seen), masks.unsort(masks.masked), masks.unsort(masks.valid))
    return request.param, counts, valid, masks, *map(np.asarray, rows)


def test_the_expected_share_of_visible_tokens_is_that_of_the_ratio_for_any_length(drawn):
    ratio, counts, _, _, _, seen, _, _ = drawn
    for count in range(1, LENGTH + 1):
        shares = seen[counts == count].sum(axis=1) / count
        low, high = np.floor(count * (1 - ratio)), np.ceil(count * (1 - ratio))
        assert {*np.unique(shares * count).round(6)} <= {low, high}
        error = 5 * 0.5 / count / np.sqrt(ROWS)  # at most half a token of deviation
        assert abs(shares.mean() - (1 - ratio)) <= error


def test_each_token_of_a_text_is_masked_alike(drawn):
    ratio, counts, _, _, _, seen, _, _ = drawn
    shares = seen[counts == LENGTH].mean(axis=0)  # of each position
    assert np.abs(shares - (1 - ratio)).max() < 5 * 0.5 / np.sqrt(ROWS)


def test_padding_is_neither_visible_nor_masked_and_each_token_is_one_of_both(drawn):
    _, _, valid, masks, order, seen, masked, known = drawn
    np.testing.assert_array_equal(np.sort(order, axis=1), np.arange(LENGTH) + 0 * order)
    np.testing.assert_array_equal(seen ^ masked, valid)
    np.testing.assert_array_equal(known, valid)
    assert not (seen & masked).any()
    text = np.arange(order.size).reshape(order.shape)
    np.testing.assert_array_equal(masks.unsort(masks.sort(text)), text)


def test_a_whole_text_has_no_masked_tokens():
    valid = np.arange(4) < np.array([[4], [0], [2]])
    masks, masked = jax.jit(lambda valid: (whole(valid), whole(valid).masked))(valid)
    np.testing.assert_array_equal(masks.seen, valid)
    assert not np.asarray(masked).any()
    np.testing.assert_array_equal(masks.order, np.arange(4) + np.zeros((3, 1)))
    drawn = jax.jit(draw, static_argnums=2)(jax.random.key(0), valid, 0.0)
    np.testing.assert_array_equal(np.asarray(drawn.seen).sum(axis=1), valid.sum(axis=1))


def test_the_loss_is_the_mean_over_the_texts_that_have_masked_tokens():
    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(size=(4, 5, 6)), rng.integers(0, 6, (4, 5))
    scored = np.array([[1, 0, 1, 1, 0], [0] * 5, [0, 0, 0, 1, 0], [1] * 5], bool)
    logits[0, 0, tokens[0, 0]] = 9  # one that is right for sure
    loss, accuracy = jax.jit(cross_entropy)(np.float32(logits), tokens, scored)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    own = -np.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
    rows = [own[i][scored[i]].mean() for i in (0, 2, 3)]
    np.testing.assert_allclose(loss, np.mean(rows), rtol=1e-5)
    right = (logits.argmax(-1) == tokens)[scored]
    np.testing.assert_allclose(accuracy, right.mean(), rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: cross_entropy(x, tokens, scored & False)[0]))
    nothing = gradient(np.float32(logits))
    assert not np.asarray(nothing).any()
