"""Files of weights as others write them: half precision, parts, prefixes, damaged descriptions."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mae_jax import weights
from mae_jax.types import UserError
from tests.helpers.commands import mistake, run
from tests.weights import models
from tests.weights.test_refusals import refused

OPTIONS = weights.Options(target="pixels", decoder_heads=4)


@pytest.fixture
def model():
    """A small one."""
    return models.mae(depth=1)


@pytest.fixture
def folder(model, tmp_path):
    """A folder of Hugging Face with it."""
    weights.write(model, tmp_path / "hf", "hf")
    return tmp_path / "hf"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_half_precision(dtype, suffix, model, tmp_path):
    weights.write(model, tmp_path / "full.safetensors", "mae")
    arrays = {k: a.astype(dtype) for k, a in load_file(tmp_path / "full.safetensors").items()}
    path = tmp_path / f"half{suffix}"
    if suffix == ".safetensors":
        save_file(arrays, path)
    else:
        torch = pytest.importorskip("torch", reason="a .pth file needs PyTorch")
        kind = torch.float16 if dtype == np.float16 else torch.bfloat16
        floats = {k: torch.tensor(a.astype(np.float32)).to(kind) for k, a in arrays.items()}
        torch.save({k: torch.nn.Parameter(v) for k, v in floats.items()}, path)
    found, _ = weights.read(path, OPTIONS._replace(heads=3))
    assert "encoder/positions" not in found.params  # coarse, but the sine-cosine ones
    for name, array in model.params.items():
        np.testing.assert_array_equal(found.params[name], array.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("other", [False, True])
def test_parts_and_their_index(other, folder, model):
    arrays = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(arrays)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: arrays[name] for name in part}, folder / file)
    if other:  # what the hub often has too
        index = {"weight_map": {"x": "pytorch_model-1.bin"}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        save_file({names[0]: np.zeros(3, np.float32)}, folder / "zz_other.safetensors")
    else:
        with pytest.raises(UserError, match="has several files of weights"):
            weights.read(folder)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found, _ = weights.read(folder)
    for name, array in model.params.items():
        np.testing.assert_array_equal(found.params[name], array)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match="lacks model-2.safetensors, which"):
        weights.read(folder)


def test_the_prefix_of_parallel_training(model, tmp_path):
    weights.write(model, tmp_path / "a.safetensors", "mae")
    arrays = load_file(tmp_path / "a.safetensors")
    save_file({f"module.{k}": v for k, v in arrays.items()}, tmp_path / "b.safetensors")
    found, _ = weights.read(tmp_path / "b.safetensors", OPTIONS._replace(heads=3))
    assert found.params.keys() == model.params.keys()


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_damaged_descriptions(name, content, folder, tmp_path, capsys):
    (folder / name).write_bytes(content)
    assert f"{name} is damaged" in refused(capsys, tmp_path, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(layer_norm_eps=0.01), "holds another model: it has layer_norm_eps=0.01"),
        (dict(hidden_act="relu"), "hidden_act='relu': only gelu is supported"),
        (dict(num_attention_heads=0), "heads 0 must be positive"),
    ],
)
def test_configs_of_other_networks(changes, message, folder, tmp_path, capsys):
    arrays = load_file(folder / "model.safetensors")
    save_file(arrays, folder / "model.safetensors")  # without our notes
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    assert message in refused(capsys, tmp_path, folder)


def test_images_that_are_not_normalized(folder):
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(do_normalize=False)))
    args = weights.read(folder)[0].args
    assert (args["mean"], args["std"]) == ((0.0,), (1.0,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--heads", 12], "--heads 12 contradicts "),
        (["--decoder-heads", 8], "--decoder-heads 8 contradicts "),
        (["--target", "pixels"], "--target pixels contradicts "),
        (["--positions", "bicubic"], "has no effect: --image-size"),
        (["--image-size", 64, "--positions", "bicubic"], "is for encoders, and the decoder's"),
        (["--head", 3], "unknown argument '--head'"),
        (["--mean", 0.1], "pass both --mean and --std"),
        (["--encoder-only", "--target", "nonsense"], "--target nonsense describes a decoder, and"),
        (["--encoder-only", "--decoder-heads", 4], "--decoder-heads 4 describes a decoder, and"),
    ],
)
def test_options_that_do_not_fit(options, message, folder, tmp_path, capsys):
    assert message in refused(capsys, tmp_path, folder, *options)


def test_options_of_a_decoder_for_an_encoder(model, tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    weights.write(model, path, "timm", encoder_only=True)
    line = refused(capsys, tmp_path, path, "--target", "pixels")
    assert line == f"--target pixels describes a decoder, and {path} has none"


def test_exports_that_do_not_fit(folder, tmp_path, capsys):
    imported = tmp_path / "imported"
    assert run("weights", "import", folder, "--out", imported) == 0
    line = mistake(capsys, "weights", "import", imported, "--out", tmp_path / "again")
    assert "is already a run" in line
    for options, message in {
        ("--format", "timm", "--output", "logits"): "--output is for the formats stablehlo",
        ("--format", "timm", "--head", 1): "--head 1 is for linear probes",
        ("--format", "stablehlo", "--image-size", 32): "--image-size is not for the format",
        ("--format", "hf"): "must be a new folder, not a file",
        ("--format", "hf", "--image-size", 64): "the run's images are 32 x 32",
    }.items():
        command = "weights", "export", "--run", imported, "--out", tmp_path / "a.safetensors"
        assert message in mistake(capsys, *command, *options)
    command = "weights", "export", "--format", "timm", "--out", tmp_path / "a.safetensors"
    assert "is not a run: convert it" in mistake(capsys, *command, "--run", folder)
    assert not (tmp_path / "a.safetensors").exists()
