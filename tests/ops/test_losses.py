"""The masked reconstruction losses against float64 numpy and an example worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops import losses
from mae_jax.types import UserError

# Shapes of the target, and of the mask that leads it: patches, single values, pixels.
SHAPES = [((3, 6, 8), (3, 6)), ((3, 6, 8), (3, 6, 8)), ((2, 4, 5, 3), (2, 4, 5))]


def example(target_shape, mask_shape, hidden_share=0.6):
    """Prediction, target and mask."""
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, *target_shape)).astype(np.float32)
    return prediction, target, rng.random(mask_shape) < hidden_share


def masked_error(prediction, target, scored, error="mse"):
    """As methods compute it."""
    return losses.masked_mean(losses.errors(prediction, target, error), scored)


def error_by_loops(prediction, target, hidden, error):
    """Adds up single float64 errors of the hidden places."""
    total, places = 0.0, 0
    for place in np.ndindex(target.shape):
        if hidden[place[: hidden.ndim]]:
            difference = float(prediction[place]) - float(target[place])
            total += difference**2 if error == "mse" else abs(difference)
            places += 1
    return total / places


@pytest.mark.parametrize("error", ["mse", "l1"])
@pytest.mark.parametrize(("target_shape", "mask_shape"), SHAPES)
def test_masked_error(target_shape, mask_shape, error):
    prediction, target, hidden = example(target_shape, mask_shape)
    found = masked_error(*map(jnp.asarray, (prediction, target, hidden)), error)
    expected = error_by_loops(prediction, target, hidden, error)
    assert found.shape == () and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_mean_over_hidden_places_and_not_over_examples():
    """Examples with more hidden patches weigh more: one mean over all hidden patches."""
    prediction = jnp.zeros((2, 3, 1))
    target = jnp.array([[[1.0], [1.0], [1.0]], [[3.0], [3.0], [3.0]]])
    hidden = jnp.array([[1, 1, 1], [1, 0, 0]])
    assert masked_error(prediction, target, hidden, error="l1") == (3 * 1 + 3) / 4


@pytest.mark.parametrize("error", ["mse", "l1"])
def test_nothing_hidden_is_zero(error):
    prediction, target, _ = example((3, 6, 8), (3, 6))
    function = lambda p: masked_error(p, target, jnp.zeros((3, 6), bool), error)
    value, gradient = jax.value_and_grad(function)(jnp.asarray(prediction))
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(prediction))


def test_bfloat16_inputs_are_compared_in_float32():
    rng = np.random.default_rng(0)
    prediction, target = jnp.asarray(rng.normal(size=(2, 4, 16, 48)), jnp.bfloat16)
    hidden = rng.random((4, 16)) < 0.75
    found = masked_error(prediction, target, jnp.asarray(hidden))
    rounded = [np.asarray(array, np.float64) for array in (prediction, target)]
    expected = np.mean(np.square(rounded[0] - rounded[1])[hidden])
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_gradient_reaches_hidden_places_only():
    prediction, target, hidden = example((3, 6, 8), (3, 6))
    gradient = jax.grad(masked_error)(jnp.asarray(prediction), target, hidden)
    expected = np.where(hidden[:, :, None], 2 * (prediction - target) / (hidden.sum() * 8), 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-8)
    assert not np.asarray(gradient)[~hidden].any()


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_normalize_patches(scale):
    """With the unbiased variance, plus 1e-6: at this smaller scale it counts."""
    patches = np.random.default_rng(0).normal(3, 1, (2, 5, 12)).astype(np.float32) * scale
    exact = patches.astype(np.float64)
    mean = exact.sum(-1, keepdims=True) / 12
    std = np.sqrt(((exact - mean) ** 2).sum(-1, keepdims=True) / 11 + 1e-6)
    found_mean, found_std = losses.patch_statistics(jnp.asarray(patches))
    np.testing.assert_allclose(found_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(found_std, std, rtol=1e-5)
    found = losses.normalize_patches(jnp.asarray(patches))
    np.testing.assert_allclose(found, (exact - mean) / std, atol=2e-5)


def test_normalize_patches_of_bfloat16_and_of_constant_patches():
    patches = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 16)), jnp.bfloat16)
    exact = np.asarray(patches, np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, ddof=1, keepdims=True)
    found = losses.normalize_patches(patches)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert not losses.normalize_patches(jnp.full((1, 2, 16), 0.5)).any()


def test_unknown_errors():
    arrays = [jnp.asarray(array) for array in example((3, 6, 8), (3, 6))]
    with pytest.raises(UserError, match="loss 'l2' is unknown: choose mse, l1"):
        masked_error(*arrays, error="l2")


def test_pairwise_order():
    """HPM's relative loss, over ordered pairs as the paper writes it, with equal targets."""
    rng = np.random.default_rng(0)
    prediction = rng.normal(scale=3, size=(3, 7)).astype(np.float32)
    target = rng.integers(0, 5, (3, 7)).astype(np.float32)
    target[2] = 1.0  # no pair to order
    total, right, pairs = 0.0, 0, 0
    for row, values in zip(prediction.astype(np.float64), target):
        for i, j in np.ndindex(7, 7):
            if values[i] == values[j]:
                continue
            probability = 1 / (1 + np.exp(row[j] - row[i]))  # that i has the larger target
            larger = values[i] > values[j]
            total -= np.log(probability) if larger else np.log(1 - probability)
            right += (row[i] > row[j]) == larger
            pairs += 1
    loss, share = jax.jit(losses.pairwise_order)(prediction, target)
    np.testing.assert_allclose(loss, total / pairs, rtol=1e-5)
    np.testing.assert_allclose(share, right / pairs, rtol=1e-5)
    np.testing.assert_array_equal(losses.pairwise_order(prediction[2:], target[2:]), (0, 0))
    steep = jnp.array([[200.0, -200.0]])
    assert losses.pairwise_order(steep, -steep)[0] == 400, "finite where probabilities are not"
