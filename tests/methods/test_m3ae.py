"""M3AE: its loss from all predictions in float64 numpy, what padding and absent parts change, and
refusals.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax import checks
from mae_jax.methods import m3ae
from mae_jax.ops.patches import patchify
from mae_jax.ops.texts import draw
from mae_jax.types import UserError
from tests.helpers.compiled import noise_like
from tests.helpers.tiny_args import VIT, make_tiny

KEY = jax.random.key(3)
LENGTH = 6


@functools.cache
def method():
    return make_tiny("methods.m3ae", encoder=VIT)


@functools.cache
def state():
    params, extra = noise_like(method().init, KEY, make_batch(), scale=0.3)
    return params, extra


@functools.cache
def compiled_loss():
    """The loss, its metrics and the gradient."""

    def loss(params, batch):
        output = method().loss(params, {}, batch, KEY, 0)
        return output.loss, output.metrics

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def loss(**changes):
    """(loss, metrics, gradient) of the batch with some fields changed."""
    (value, metrics), gradient = compiled_loss()(state()[0], make_batch() | changes)
    return jax.device_get((value, metrics, gradient))


@functools.cache
def predict(*outputs):
    run = functools.partial(method().predict, outputs=outputs)
    compiled = jax.jit(run)
    return lambda **changes: jax.device_get(compiled(*state(), make_batch() | changes))


def make_batch():
    """Five images with texts of 6, 4, 1, 0 and 5 tokens, of which the last has no image."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (5, 16, 12, 3)).astype(np.uint8),
        "image_valid": np.array([True, True, True, True, False]),
        "text": rng.integers(0, 16, (5, LENGTH)).astype(np.int32),
        "text_valid": np.arange(LENGTH) < np.array([[6], [4], [1], [0], [5]]),
    }


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_loss_is_that_of_masked_patches_and_of_masked_tokens():
    """From predictions of all patches and tokens, in float64."""
    batch, ours, params = make_batch(), method(), state()[0]
    value, metrics, _ = loss()
    keys = jax.random.split(KEY)
    mask = ours.draw_mask(keys[0], batch["image"])
    words = draw(keys[1], batch["text_valid"], ours.text_mask_ratio)
    fields = (batch["image"], batch["image_valid"], batch["text"])
    patches, logits = jax.jit(ours.predictions)(params, *fields, mask, words)  # [5, 12, 48]
    true = patchify((batch["image"] / 255 - 0.5) / 0.25, 4)  # [5, 12, 48]
    errors = np.square(np.float64(patches) - true).mean(axis=2)
    hidden = np.asarray(mask.mask) & batch["image_valid"][:, None]
    assert hidden.sum() == 4 * 9
    image_loss = errors[hidden].mean()
    logits, order = np.float64(logits), np.asarray(words.order)
    log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    each = []
    for row, masked in enumerate(np.asarray(words.masked)):
        tokens = batch["text"][row, order[row]]
        assert not (masked & ~batch["text_valid"][row, order[row]]).any()
        if masked.any():
            each.append(-log_p[row, np.arange(LENGTH), tokens][masked].mean())
    assert len(each) >= 3
    np.testing.assert_allclose(metrics["image_loss"], image_loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["text_loss"], np.mean(each), rtol=1e-4)
    np.testing.assert_allclose(value, image_loss + 0.5 * np.mean(each), rtol=1e-4)


def test_padding_changes_no_bit():
    """Of loss, gradient and every output of texts."""
    batch = make_batch()
    text = np.where(batch["text_valid"], batch["text"], 15 - batch["text"])
    assert_equal(loss(text=text), loss())
    read = predict("text_features", "joint_features", "text_correct", "patch_error")
    assert_equal(read(text=text), read())
    other = np.where(batch["text_valid"], 15 - batch["text"], batch["text"])
    assert loss(text=other)[0] != loss()[0]


def test_an_image_that_is_absent_changes_no_bit():
    batch = make_batch()
    image = batch["image"].copy()
    image[4] = 255 - image[4]
    assert_equal(loss(image=image), loss())
    read = predict("joint_features", "text_correct", "text_masked")
    assert_equal(read(image=image), read())
    image[0] = 255 - image[0]
    assert loss(image=image)[0] != loss()[0]


def test_masked_tokens_are_not_seen():
    """Predictions do not depend on them; on the visible ones they do."""
    read = predict("text_correct", "text_masked")
    masked = read()["text_masked"]
    valid = make_batch()["text_valid"]
    assert (masked <= valid).all() and 0 < masked.sum() < valid.sum()
    params, text = state()[0], make_batch()["text"]
    keys = jax.random.split(KEY)
    words = draw(keys[1], valid, 0.5)
    fields = (make_batch()["image"], make_batch()["image_valid"])
    logits = jax.jit(lambda text: method().predictions(params, *fields, text, None, words)[1])
    hidden = np.asarray(words.unsort(words.masked))
    np.testing.assert_array_equal(logits(np.where(hidden, 15 - text, text)), logits(text))
    assert (np.asarray(logits(np.where(hidden, text, 15 - text))) != logits(text)).any()


def test_each_part_trains_without_the_other():
    batch = make_batch()
    nothing = {name: np.zeros_like(batch[name]) for name in ("image_valid", "text_valid")}
    value, metrics, gradient = loss(text_valid=nothing["text_valid"])
    assert metrics["text_loss"] == metrics["text_accuracy"] == 0 < metrics["image_loss"] == value
    assert not gradient["text"]["table"].any() and gradient["encoder"]["embed"]["kernel"].any()
    value, metrics, gradient = loss(image_valid=nothing["image_valid"])
    assert metrics["image_loss"] == 0 < metrics["text_loss"] == 2 * value
    assert not gradient["encoder"]["embed"]["kernel"].any() and gradient["text"]["table"].any()
    value, metrics, gradient = loss(**nothing)
    assert value == 0 and not any(leaf.any() for leaf in jax.tree.leaves(gradient))


def test_the_features_of_images_are_those_of_a_plain_encoder():
    """So every method and task that has such an encoder can start from it."""
    batch, mae = make_batch(), make_tiny("methods.mae")
    params = state()[0]
    plain = jax.eval_shape(mae.init, KEY, batch)[0]["encoder"]
    assert jax.tree.map(np.shape, plain) == jax.tree.map(np.shape, params["encoder"])
    assert method().loads() == mae.loads()
    assert method().encoder.architecture == mae.encoder.architecture
    images = {"image": batch["image"]}
    features = jax.jit(functools.partial(mae.predict, outputs=("features",)))(params, {}, images)
    ours = jax.jit(functools.partial(method().predict, outputs=("features",)))(params, {}, images)
    np.testing.assert_array_equal(ours["features"], features["features"])
    joint = predict("joint_features")(text_valid=np.zeros((5, LENGTH), bool))["joint_features"]
    np.testing.assert_allclose(joint[:4], features["features"][:4], rtol=1e-4, atol=1e-5)


def test_reconstructions_are_drawn_with_the_text_with_another_and_without():
    rows = jax.eval_shape(method().draw, *state(), make_batch())
    assert [name for name in rows if name.startswith("predicted")] == [
        "predicted with its text",
        "predicted with the text of the next image",
        "predicted without text",
    ]
    images = {"image": make_batch()["image"]}
    assert not any("text" in name for name in jax.eval_shape(method().draw, *state(), images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(vocabulary=1), "vocabulary=1 must be at least 2"),
        (dict(length=0), "length=0 at least 1"),
        (dict(text_mask_ratio=1.0), r"text_mask_ratio=1.0 is outside \[0, 1\)"),
        (dict(image_weight=0.0, text_weight=0.0), "one of them must be positive"),
        (dict(encoder=VIT.replace(")", ", mask_tokens=True)")), "cannot encode text tokens"),
        (dict(encoder="convnext(T)", pool="mean"), "cannot encode text tokens"),
    ],
)
def test_refusals(changes, message):
    with pytest.raises(UserError, match=message) as error:
        m3ae.make(**dict(vocabulary=16, encoder=VIT) | changes)
    assert "\n" not in str(error.value)


def test_tokens_of_a_larger_vocabulary_than_the_methods_are_refused():
    assert method().vocabulary_size() == 16
    checks.check_tokens(np.array([[0, 15]]), 16)
    for text in ([[0, 16]], [[-1, 3]]):
        with pytest.raises(UserError, match="a text has the token .*vocabulary=16: raise it"):
            checks.check_tokens(np.array(text), 16)


def test_batches_without_texts_or_with_those_of_another_length_are_refused():
    batch = make_batch()
    with pytest.raises(UserError, match=r"use a source that has them.*'text_valid'\)"):
        jax.eval_shape(method().loss, *state(), {"image": batch["image"]}, KEY, 0)
    longer = {name: jnp.zeros((5, 9), rows.dtype) for name, rows in batch.items() if "text" in name}
    with pytest.raises(UserError, match=r"shape \[9\] and config.method.args.length=6: make them"):
        jax.eval_shape(method().loss, *state(), batch | longer, KEY, 0)
    images = {"image": batch["image"]}
    shapes = jax.eval_shape(method().init, KEY, images)[0]  # to encode images alone
    assert jax.tree.map(np.shape, shapes) == jax.tree.map(np.shape, state()[0])
