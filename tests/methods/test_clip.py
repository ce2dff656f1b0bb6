"""CLIP with masked images: its losses against float64 numpy, over two devices against one, and the
steps with whole images.
"""

import functools

import jax
import numpy as np
import pytest

from mae_jax.engine.mesh import batch_sharding, make_mesh
from mae_jax.methods import clip
from mae_jax.types import UserError
from tests.helpers.compiled import noise_like
from tests.helpers.tiny_args import VIT, make_tiny

KEY = jax.random.key(3)
WHOLE = 29  # a step of the last ones, of 30


@functools.cache
def case(**changes):
    """A method, and its compiled loss (params, batch, key, step): ((loss, metrics), gradient)."""
    method = make_tiny("methods.clip", tuning_share=0.1, **changes)

    def loss(params, batch, key, step):
        output = method.loss(params, {}, batch, key, step)
        return output.loss, output.metrics

    params, _ = noise_like(method.init, KEY, make_batch(), scale=0.3)
    if method.loss_kind == "infonce":
        params["logit_scale"] = np.float32(np.log(5))
    return method, params, jax.jit(jax.value_and_grad(loss, has_aux=True))


def make_batch():
    """Four images with texts of 6, 4, 1 and 0 tokens."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (4, 16, 12, 3)).astype(np.uint8),
        "text": rng.integers(0, 16, (4, 6)).astype(np.int32),
        "text_valid": np.arange(6) < np.array([[6], [4], [1], [0]]),
    }


@functools.cache
def embeddings(**changes):
    """Products of all images with all texts [3, 3] of the pairs that have a text, float64."""
    method, params, _ = case(**changes)
    outputs = ("image_embedding", "text_embedding")
    run = jax.jit(functools.partial(method.predict, outputs=outputs))
    images, texts = (np.float64(run(params, {}, make_batch())[name])[:3] for name in outputs)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    return images @ texts.T


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def test_the_loss_of_whole_images_is_infonce_of_the_embeddings():
    _, params, run = case()
    (loss, metrics), gradient = run(params, make_batch(), KEY, WHOLE)
    logits = 5 * embeddings()
    expected = -np.mean([np.diag(log_softmax(x)).mean() for x in (logits, logits.T)])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["top1"], np.mean(logits.argmax(1) == np.arange(3)))
    np.testing.assert_allclose(metrics["temperature"], 0.2, rtol=1e-5)
    assert abs(gradient["logit_scale"]) > 1e-6


def test_the_temperature_is_at_least_a_hundredth():
    _, params, run = case()
    (loss, metrics), gradient = run(
        params | {"logit_scale": np.float32(np.log(1000))}, make_batch(), KEY, WHOLE
    )
    np.testing.assert_allclose(metrics["temperature"], 0.01, rtol=1e-5)
    logits = 100 * embeddings()
    expected = -np.mean([np.diag(log_softmax(x)).mean() for x in (logits, logits.T)])
    np.testing.assert_allclose(loss, expected, rtol=1e-3)
    assert gradient["logit_scale"] == 0


@pytest.mark.thorough  # test_contrastive.py has the formula
def test_the_sigmoid_loss_is_that_of_all_pairs():
    changes = dict(loss="sigmoid", mask_ratio=0.0)
    _, params, run = case(**changes)
    (loss, _), gradient = run(params, make_batch(), KEY, 0)
    logits = np.exp(np.float64(params["logit_scale"])) * embeddings(**changes)
    logits += np.float64(params["logit_bias"])
    signs = 2 * np.eye(3) - 1
    np.testing.assert_allclose(loss, np.log1p(np.exp(-signs * logits)).sum() / 3, rtol=1e-4)
    assert abs(gradient["logit_bias"]) > 1e-6


def test_images_are_masked_but_in_the_last_steps():
    method, params, run = case()
    assert method.first_step == 27
    loss = lambda key, step: float(run(params, make_batch(), jax.random.key(key), step)[0][0])
    assert loss(0, 26) != loss(1, 26) and loss(0, 26) == loss(0, 0)
    assert loss(0, 27) == loss(1, 27) == loss(0, 29) != loss(0, 26)


def test_padding_and_images_without_a_text_change_no_bit():
    _, params, run = case()
    batch = make_batch()
    text = np.where(batch["text_valid"], batch["text"], 15 - batch["text"])
    image = batch["image"].copy()
    image[3] = 255 - image[3]
    first = jax.device_get(run(params, batch, KEY, 0))
    other = jax.device_get(run(params, batch | {"text": text, "image": image}, KEY, 0))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    image[0] = 255 - image[0]
    assert run(params, batch | {"image": image}, KEY, 0)[0][0] != first[0][0]


def test_negatives_are_those_of_the_global_batch():
    """Two devices with half of the pairs each, against one with all."""
    _, params, run = case()
    batch = make_batch()
    (loss, metrics), gradient = run(params, batch, KEY, 0)
    split = jax.device_put(batch, batch_sharding(make_mesh()))
    (other, others), gradients = run(params, split, KEY, 0)
    np.testing.assert_allclose(other, loss, rtol=1e-5)
    np.testing.assert_allclose(others["top1"], metrics["top1"])
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(loss="hinge"), "loss"),
        (dict(tuning_share=2.0), r"tuning_share=2.0 must be in \[0, 1\]"),
        (dict(embedding=0), "embedding=0 positive"),
        (dict(mask_ratio=1.0), r"mask_ratio=1.0 is outside \[0, 1\)"),
        (dict(text="text_tower(width=16)"), "width, depth and heads"),
        (dict(text="text_tower(XX)"), "text_tower size 'XX' is unknown"),
        (dict(text="text_tower(Ti, causal=True, pool=first)"), "sees no other: set pool=last"),
        (dict(text="text_tower(Ti, length=3)"), "length"),
        (dict(text=VIT), "vit"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UserError, match=message) as error:
        clip.make(**dict(vocabulary=16, encoder=VIT) | changes)
    assert "\n" not in str(error.value)
