"""VideoMAE's weights in and out: the loss and predictions of transformers, from stored arrays and,
in thorough tests, from its classes.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.ops import masking
from mae_jax.ops.pixels import IMAGENET_MEAN, IMAGENET_STD
from mae_jax.types import UserError
from mae_jax.weights.export import convert
from tests.helpers.commands import run

GOLDEN = Path(__file__).parent.parent / "golden" / "videomae.npz"
PROCESSOR = dict(
    image_processor_type="VideoMAEImageProcessor",
    image_mean=IMAGENET_MEAN,
    image_std=IMAGENET_STD,
)


@pytest.fixture(scope="module")
def reference():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model(folder):
    return weights.read(folder)[0]


def weights_of(reference):
    start = "weight/"
    return {k.removeprefix(start): v for k, v in reference.items() if k.startswith(start)}


def folder_of(path, arrays, config, **changes):
    """A folder as `save_pretrained` writes it."""
    path.mkdir()
    save_file(arrays, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config | changes))
    (path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return path


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory):
    config = json.loads(str(reference["config"]))
    path = tmp_path_factory.mktemp("videomae") / "hf"
    return folder_of(path, weights_of(reference), config)


def computed(model, videos, hidden):
    """Tokens of visible patches, predictions of masked ones, and the loss."""
    method = make_method(name=model.method, args=model.args, total_steps=1)
    params = traverse_util.unflatten_dict(model.params, sep="/")

    visible = int((~hidden).sum(axis=1)[0])

    @jax.jit
    def run(params, videos, hidden):
        mask = masking.from_scores(hidden.astype(jnp.float32), visible)
        prediction = method.reconstruct_for_loss(params, videos, mask)
        tokens = method.encoder.apply({"params": params["encoder"]}, method.normalize(videos), mask)
        return tokens, prediction, method.error(prediction, {}, {"image": videos}, mask)

    with jax.default_matmul_precision("highest"):
        return jax.device_get(run(params, videos, hidden))


def test_the_loss_and_predictions_are_those_of_transformers(reference, folder):
    model, table = weights.read(folder)
    assert model.method == "mae" and model.image == (6, 8, 12, 3)
    assert "positions=flat" in str(model.args["encoder"]).replace("'", "")
    assert not [row for row in table if row.theirs == "(created)" or "left over" in row.ours]
    tokens, prediction, loss = computed(model, reference["videos"], reference["mask"])
    for name, found in dict(tokens=tokens, logits=prediction, loss=loss).items():
        scale = np.abs(reference[name]).max()
        error = np.abs(found - reference[name]).max()
        print(f"{name}: {error:.1e} of {scale:.2f}")
        assert found.shape == reference[name].shape and error < 5e-6 * scale, name


def test_they_go_back_bit_for_bit(reference, model, tmp_path, capsys):
    weights.write(model, tmp_path / "out", "videomae")
    assert {*load_file(tmp_path / "out" / "model.safetensors")} == {*weights_of(reference)}
    for name, array in load_file(tmp_path / "out" / "model.safetensors").items():
        np.testing.assert_array_equal(array, reference[f"weight/{name}"], err_msg=name)
    again, _ = weights.read(tmp_path / "out")
    assert again.args == model.args and again.image == model.image
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for key, value in json.loads(str(reference["config"])).items():
        if key in config and key != "qv_bias":
            assert config[key] == value, key
    assert run("weights", "import", tmp_path / "out", "--out", tmp_path / "imported") == 0
    assert "mae for 6 x 8 x 12 x 3 images" in capsys.readouterr().out


def test_an_encoder_alone(model, tmp_path):
    """`VideoMAEModel` has the same names without a prefix; they are those of ViT, too."""
    made = convert(model, "videomae", encoder_only=True)
    assert made.files["config.json"]["architectures"] == ["VideoMAEModel"]
    path = folder_of(tmp_path / "encoder", made.arrays, made.files["config.json"])
    encoder, _ = weights.read(path)
    assert encoder.method == "tasks.encode"
    for name, array in encoder.params.items():
        np.testing.assert_array_equal(array, model.params[name])
    without = {k: v for k, v in made.arrays.items() if not k.startswith("layernorm.")}
    path = folder_of(tmp_path / "pooled", without, made.files["config.json"])
    assert "final_norm=False" in weights.read(path)[0].args["encoder"]


@pytest.mark.thorough
def test_a_classifier(reference, folder, tmp_path):
    """The norm of the mean over all patches, then a linear layer; positions are trained here."""
    rng = np.random.default_rng(1)
    arrays = {k: v for k, v in weights_of(reference).items() if k.startswith("videomae.")}
    arrays = {k: v for k, v in arrays.items() if "videomae.layernorm" not in k}
    for name, shape in dict(weight=(24,), bias=(24,)).items():
        arrays[f"fc_norm.{name}"] = rng.normal(size=shape).astype(np.float32)
    arrays["classifier.weight"] = rng.normal(size=(5, 24)).astype(np.float32)
    arrays["classifier.bias"] = rng.normal(size=5).astype(np.float32)
    config = json.loads(str(reference["config"])) | dict(use_mean_pooling=True)
    model, _ = weights.read(folder_of(tmp_path / "classifier", arrays, config))
    assert model.method == "tasks.finetune" and model.args["classes"] == 5
    method = make_method(name=model.method, args=model.args, total_steps=1)
    params = traverse_util.unflatten_dict(model.params, sep="/")
    encoder = make_method(
        name="tasks.encode",
        args=dict(encoder=model.args["encoder"][:-1] + ", final_norm=False)", pool="mean"),
        total_steps=1,
    ).encoder

    @jax.jit
    def run(params, videos):
        logits = method.predict(params, {}, {"image": videos}, outputs=["logits"])["logits"]
        plain = {k: v for k, v in params["encoder"].items() if k != "positions"}
        return logits, encoder.apply({"params": plain}, method.normalize(videos))

    logits, tokens = run(params, reference["videos"])
    mean = np.float64(tokens).mean(axis=1)
    normed = mean - mean.mean(axis=1, keepdims=True)
    normed /= np.sqrt((normed**2).mean(axis=1, keepdims=True) + 1e-6)
    normed = normed * arrays["fc_norm.weight"] + arrays["fc_norm.bias"]
    expected = normed @ arrays["classifier.weight"].T + arrays["classifier.bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(norm_pix_loss=False), "predicts pixels that are not normalized"),
        (dict(tubelet_size=3), "tubelet_size=3 in config.json, 2 in the"),
        (dict(num_attention_heads=24, hidden_size=48), "describes another model"),
        (dict(model_type="timesformer"), "model_type='timesformer'"),
    ],
)
def test_other_models_are_refused(reference, tmp_path, changes, message):
    config = json.loads(str(reference["config"])) | changes
    path = folder_of(tmp_path / "other", weights_of(reference), config)
    with pytest.raises(UserError, match=message):
        weights.read(path)


def test_weights_without_a_description_are_refused(reference, tmp_path):
    save_file(weights_of(reference), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="no config.json with num_frames next to it"):
        weights.read(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("decoder_positions", "sincos", "videomae needs decoder_positions=flat"),
        ("decoder_embed_bias", True, "videomae needs decoder_embed_bias=False"),
        ("target", "pixels(normalize=True)", r"needs target=pixels\(normalize=channels\)"),
        ("encoder", "vit(width=24, depth=2, heads=3, patch=(2, 4, 4))", "positions=flat"),
    ],
)
def test_other_runs_are_not_written(model, option, value, message):
    with pytest.raises(UserError, match=message):
        convert(model._replace(args=model.args | {option: value}), "videomae")
    with pytest.raises(UserError, match="the layout hf is for 2-D images"):
        convert(model, "hf")


@pytest.mark.thorough
def test_transformers_loads_what_is_written(folder, tmp_path):
    """Nothing is missing or left over, and other random weights give the same loss there."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="4.40")
    model, _ = weights.read(folder)
    rng = np.random.default_rng(2)
    for path, array in model.params.items():
        model.params[path] = array + 0.1 * rng.standard_normal(array.shape).astype(np.float32)
        if path.endswith("qkv/bias"):
            model.params[path][len(array) // 3 : 2 * len(array) // 3] = 0
    weights.write(model, tmp_path / "out", "videomae")
    theirs, report = transformers.VideoMAEForPreTraining.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs.decoder.norm.eps = 1e-6
    videos = rng.integers(0, 256, (2, 6, 8, 12, 3), np.uint8)
    hidden = np.tile(np.arange(6) != 4, (2, 3))
    method = make_method(name=model.method, args=model.args, total_steps=1)
    pixels = torch.tensor(np.array(method.normalize(videos))).permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        output = theirs.eval()(pixel_values=pixels, bool_masked_pos=torch.tensor(hidden))
    _, prediction, loss = computed(model, videos, hidden)
    np.testing.assert_allclose(prediction, output.logits.numpy(), atol=2e-5)
    np.testing.assert_allclose(loss, output.loss.numpy(), rtol=1e-5)
    encoder = tmp_path / "encoder"
    weights.write(model, encoder, "videomae", encoder_only=True)
    _, report = transformers.VideoMAEModel.from_pretrained(encoder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
