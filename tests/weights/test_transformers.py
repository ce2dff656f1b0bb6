"""Exports load in transformers with `from_pretrained` as they are, and say the same there."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.ops.pixels import normalize
from mae_jax.types import UserError
from tests.weights import models

torch = transformers = None


@pytest.fixture(scope="module", autouse=True)
def reference():
    """Imports it when a test runs, as it takes seconds."""
    global torch, transformers
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="4.40")


def opened(folder):
    """The model of a folder, loaded by the name in it; nothing may be missing or left over."""
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, said = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(said.get(key) for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def small(model):
    """Random weights of a size at which float32 can be compared."""
    for path, array in model.params.items():
        if path.endswith("kernel"):
            array /= np.sqrt(len(array))
        elif path.endswith("scale"):
            array[:] = 1 + 0.1 * array
    return model


def batch(shape):
    """Images as bytes, and as float tensors [B, C, H, W] for the other side."""
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return images, lambda m: torch.tensor(
        np.asarray(normalize(jnp.asarray(images), m.args["mean"], m.args["std"]))
    ).permute(0, 3, 1, 2)


def test_oblong_images_are_named(tmp_path, caplog):
    weights.write(models.mae(image=(16, 48, 3), patch=8), tmp_path / "out", "hf")
    assert "runs ViTMAEForPreTraining on square images only" in caplog.text
    with pytest.raises(UserError, match="needs square images, and these are 24 x 16"):
        weights.write(models.tuned("mean"), tmp_path / "mean", "hf")


@pytest.mark.parametrize("pool", ["cls", pytest.param("mean", marks=pytest.mark.thorough)])
def test_a_classifier(pool, tmp_path):
    model = small(models.tuned(pool, columns=3))
    weights.write(model, tmp_path / "out", "hf")
    images, floats = batch((3, 24, 24, 3))
    with torch.no_grad():
        theirs = opened(tmp_path / "out")(pixel_values=floats(model)).logits.numpy()
    method = make_method(name=model.method, args=model.args, total_steps=1)
    params = traverse_util.unflatten_dict(model.params, sep="/")
    ours = method.predict(params, {}, {"image": jnp.asarray(images)}, outputs=["logits"])["logits"]
    error = np.abs(ours - theirs).max()
    print(f"\n{pool}: logits differ by {error:.1e} of {np.abs(theirs).max():.1f}")
    assert error < 1e-5


def test_an_encoder_alone(tmp_path):
    model = small(models.mae(depth=2))
    weights.write(model, tmp_path / "out", "hf", encoder_only=True)
    images, floats = batch((2, 32, 32, 3))
    theirs = opened(tmp_path / "out")
    theirs.config.mask_ratio = 0.0
    noise = torch.arange(4.0).repeat(2, 1)  # the order of the patches as it is
    with torch.no_grad():
        tokens = theirs(pixel_values=floats(model), noise=noise).last_hidden_state.numpy()
    method = make_method(name="mae", args=model.args, total_steps=1)
    params = traverse_util.unflatten_dict(model.params, sep="/")
    ours = method.predict(params, {}, {"image": jnp.asarray(images)}, outputs=["features"])[
        "features"
    ]
    error = np.abs(ours - tokens[:, 0]).max()
    print(f"\nfeatures differ by {error:.1e} of {np.abs(tokens).max():.1f}")
    assert error < 1e-5


def test_a_masked_autoencoder_with_its_decoder(tmp_path):
    model = small(models.mae(depth=2))
    weights.write(model, tmp_path / "out", "hf")
    theirs = opened(tmp_path / "out")
    for name, array in theirs.state_dict().items():
        assert torch.isfinite(array).all(), name
    kernel = theirs.state_dict()["decoder.decoder_pred.weight"].numpy()
    np.testing.assert_array_equal(kernel.T, model.params["decoder/predict/kernel"])
    assert theirs.config.norm_pix_loss and theirs.config.mask_ratio == 0.6


@pytest.mark.parametrize("mean", [(0.5, 0.4, 0.3), (0.4,)])
def test_the_processor_makes_the_same_pixels(mean, tmp_path):
    channels = len(mean)
    model = models.mae(image=(32, 32, channels), mean=mean)
    weights.write(model, tmp_path / "out", "hf")
    said = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    Processor = getattr(transformers, "ViTImageProcessorPil", transformers.ViTImageProcessor)
    processor = Processor.from_pretrained(tmp_path / "out")
    images, floats = batch((1, 32, 32, channels))
    theirs = processor(images[0], input_data_format="channels_last", return_tensors="np")
    assert said["size"] == {"height": 32, "width": 32}
    np.testing.assert_allclose(theirs["pixel_values"], floats(model), rtol=0, atol=1e-6)
