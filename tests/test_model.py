"""`mae_jax.load`: outputs for arrays, of a run and of weights, without data or a run's devices."""

import jax
import numpy as np
import pytest
from PIL import Image

import mae_jax
from mae_jax import weights
from mae_jax.types import UserError
from tests.weights import models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "mae"
    weights.write_run(models.mae(depth=1, image=(16, 16, 3), patch=8), folder)
    return mae_jax.load(folder)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)


def test_features_are_those_of_the_method_whatever_the_batch(model, images):
    expected = model.method.predict(model.params, {}, {"image": images}, outputs=("features",))
    for batch_size in (2, 5, 64):
        found = model.features(images, batch_size=batch_size)
        np.testing.assert_allclose(found, expected["features"], rtol=1e-5, atol=1e-5)
    assert isinstance(found, np.ndarray) and found.dtype == np.float32


def test_the_encoder_is_a_flax_module(model, images):
    tokens = jax.jit(model.encoder.apply)(
        {"params": model.params["encoder"]}, model.normalize(images)
    )
    found = model.predict(images, "tokens", "features")
    np.testing.assert_allclose(found["tokens"], tokens, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found["features"], model.features(images))


def test_files_are_preprocessed_as_in_evaluation(model, tmp_path):
    Image.fromarray(np.full((40, 60, 3), (10, 20, 30), np.uint8)).save(tmp_path / "a.png")
    found = model.preprocess([tmp_path / "a.png", tmp_path / "a.png"])
    assert found.shape == (2, *model.image_shape) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.broadcast_to([10, 20, 30], found.shape))
    assert model.features(found).shape == (2, model.encoder.width)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x / 255.0, r"type float64: give \[N, \*space, 3\] of uint8"),
        (lambda x: x[..., :1], r"shape \[5, 16, 16, 1\]"),
        (lambda x: x[0, 0], r"shape \[16, 3\]"),
        (lambda x: x[:0], "no images"),
    ],
)
def test_other_images_are_refused(model, images, change, message):
    with pytest.raises(UserError, match=message):
        model.features(change(images))
    with pytest.raises(UserError, match="batch_size=0 must be at least 1"):
        model.features(images, batch_size=0)
    with pytest.raises(UserError, match="'logits' is unknown: choose features, tokens"):
        model.predict(images, "logits")
