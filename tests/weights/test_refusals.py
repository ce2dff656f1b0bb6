"""What is not the weights of a model that we know: one line each, and nothing is written."""

import os
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mae_jax import weights
from mae_jax.types import UserError
from tests.helpers.commands import mistake, run
from tests.weights import models

SAID = "--target", "pixels", "--decoder-heads", 4
"""What the arrays of `good` do not say without our notes."""


@pytest.fixture
def good(tmp_path):
    """A file that is taken."""
    weights.write(models.mae(), tmp_path / "good.safetensors", "mae")
    return tmp_path / "good.safetensors"


def refused(capsys, tmp_path, source, *options):
    """The line with which a file is refused; nothing must have been written."""
    before = sorted(tmp_path.iterdir())
    line = mistake(capsys, "weights", "import", source, "--out", tmp_path / "out", *options)
    assert sorted(tmp_path.iterdir()) == before
    return line


def changed(good, **arrays):
    """The good file with arrays exchanged or, where None, taken out."""
    content = load_file(good) | arrays
    path = good.with_name("changed.safetensors")
    save_file({k: v for k, v in content.items() if v is not None}, path)
    return path


class Harmful:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch harm",)


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".pt"])
def test_a_pickle_that_would_run_code(suffix, tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch", reason="without PyTorch no pickle is read at all")
    monkeypatch.chdir(tmp_path)
    plain, zipped = tmp_path / f"plain{suffix}", tmp_path / f"zipped{suffix}"
    plain.write_bytes(pickle.dumps({"model": Harmful()}, protocol=2))
    torch.save({"model": {"cls_token": torch.zeros(1)}, "args": Harmful()}, zipped)
    for path in (plain, zipped):
        assert "could run code when loaded" in refused(capsys, tmp_path, path)
    assert not (tmp_path / "harm").exists()


def test_without_pytorch(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "a.pth").write_bytes(b"x")
    message = refused(capsys, tmp_path, tmp_path / "a.pth")
    assert "pip install torch, or pass .safetensors" in message


def test_truncated_files(good, tmp_path, capsys):
    short = tmp_path / "short.safetensors"
    for length in (5, 1000, good.stat().st_size - 1):
        short.write_bytes(good.read_bytes()[:length])
        assert "is damaged, or no safetensors file" in refused(capsys, tmp_path, short)
    pytest.importorskip("torch", reason="a .pth file needs PyTorch")
    weights.write(models.mae(), tmp_path / "good.pth", "mae")
    content, short = (tmp_path / "good.pth").read_bytes(), tmp_path / "short.pth"
    for length in (1000, len(content) - 100):
        short.write_bytes(content[:length])
        assert "is damaged, or no PyTorch file" in refused(capsys, tmp_path, short)


def test_other_models(good, tmp_path, capsys):
    other = tmp_path / "other.safetensors"
    save_file({"layer1.0.conv1.weight": np.zeros((4, 3, 3, 3), np.float32)}, other)
    line = refused(capsys, tmp_path, other)
    assert "holds another model, it looks like a ResNet: its arrays (layer1.0.conv1" in line
    (tmp_path / "config.json").write_text("{}")
    assert "describes weights and" in refused(capsys, tmp_path, tmp_path / "config.json")
    assert "there is no /nowhere" in refused(capsys, tmp_path, "/nowhere")


def test_arrays_that_are_missing_or_too_many(good, tmp_path, capsys):
    path = changed(good, **{"blocks.3.norm1.weight": None})
    line = refused(capsys, tmp_path, path, *SAID)
    assert "lacks parameters of vit(Ti, patch=16): encoder/block_3/norm1/scale; " in line
    assert "; mae-jax weights import --allow REGEX accepts such names" in line
    path = changed(good, **{"blocks.3.attn.q_norm.weight": np.ones(192, np.float32)})
    line = refused(capsys, tmp_path, path, *SAID)
    assert "unknown arrays: blocks.3.attn.q_norm.weight (a norm of queries and" in line
    assert "; mae-jax weights import --allow REGEX accepts such names" in line
    assert "no regular expression" in refused(capsys, tmp_path, path, *SAID, "--allow", "[")
    allowed = *SAID, "--allow", "q_norm"
    assert run("weights", "import", path, "--out", tmp_path / "out", *allowed) == 0
    printed = capsys.readouterr().out
    assert "(left over)" in printed and "blocks.3.attn.q_norm.weight" in printed


@pytest.mark.slow
@pytest.mark.thorough
def test_what_may_be_missing_is_made(good, tmp_path, capsys):
    for name, ours in {
        "mask_token": "decoder/mask_token",
        "cls_token": "holds another model",
        "pos_embed": "no position embedding",
        "blocks.0.mlp.fc1.bias": "encoder/block_0/mlp/fc1/bias",
    }.items():
        assert ours in refused(capsys, tmp_path, changed(good, **{name: None}), *SAID)
    path = changed(good, **{"decoder_norm.bias": None})
    allowed = *SAID, "--allow", "^decoder/norm/bias$"
    assert run("weights", "import", path, "--out", tmp_path / "out", *allowed) == 0
    assert "(created)" in capsys.readouterr().out
    found, _ = weights.read(tmp_path / "out")
    np.testing.assert_array_equal(found.params["decoder/norm/bias"], 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value, good, tmp_path, capsys):
    kernel = load_file(good)["blocks.0.attn.qkv.weight"]
    kernel[3, 4] = value
    path = changed(good, **{"blocks.0.attn.qkv.weight": kernel})
    line = refused(capsys, tmp_path, path)
    assert "blocks.0.attn.qkv.weight in" in line and "values that are not finite" in line


def test_shapes_that_do_not_fit(good, tmp_path, capsys):
    path = changed(good, **{"blocks.2.attn.qkv.weight": np.zeros((10, 192), np.float32)})
    line = refused(capsys, tmp_path, path, *SAID)
    assert "another model: encoder/block_2/attention/qkv/kernel has shape [192, 10]" in line
    path = changed(good, **{"patch_embed.proj.weight": np.zeros((192, 768), np.float32)})
    assert "4 axes are expected" in refused(capsys, tmp_path, path, *SAID)
    path = changed(good, pos_embed=np.zeros((1, 7, 192), np.float32))
    assert "the grid of 6 patches is unknown" in refused(capsys, tmp_path, path, *SAID)


def test_what_is_there_is_not_written_over(good, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "already exists" in refused(capsys, tmp_path, good)
    command = "weights", "export", "--run", tmp_path / "in", "--format", "timm", "--out"
    assert run("weights", "import", good, "--out", tmp_path / "in") == 0
    assert "already exists" in mistake(capsys, *command, good)
    line = mistake(capsys, *command, tmp_path / "a.npz")
    assert "must end in .safetensors or .pth" in line


@pytest.mark.parametrize(
    ("encoder", "image", "message"),
    [
        (
            "vit(Ti)",
            (8, 32, 32, 3),
            "are [8, 32, 32, 3], and the layout mae is for 2-D images: use",
        ),
        ("vit(Ti)", (64, 3), "are [64, 3], and the layout mae is for 2-D images: use"),
        ("vit(Ti, positions=flat)", (32, 32, 3), "need positions=sincos, without a spacing"),
        ("vit(Ti, patch=(8, 16))", (32, 32, 3), "these layouts need one class token and square"),
        ("vit(Ti, class_tokens=2)", (32, 32, 3), "these layouts need one class token and square"),
        ("convnext(T)", (32, 32, 3), "these layouts hold only vision transformers"),
    ],
)
def test_what_no_layout_has_a_place_for(tmp_path, encoder, image, message):
    model = models.mae(depth=1)
    model = model._replace(image=image, args=model.args | {"encoder": encoder})
    with pytest.raises(UserError) as error:
        weights.write(model, tmp_path / "out.safetensors", "mae")
    assert message in str(error.value) and not list(tmp_path.iterdir())
