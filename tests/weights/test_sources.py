"""What people give as weights: sets of them in one file, under prefixes; and files that hold none
that can be read, each of which gets one line that says what it is and the way out.
"""

import gzip
import io
import json
import tarfile
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mae_jax.types import UserError
from mae_jax.weights.files import open_weights
from mae_jax.weights.init_from import origin
from tests.helpers import plain_vit
from tests.helpers.commands import run
from tests.weights.test_refusals import refused
from tests.weights.test_unusual import file_of

SAID = "--heads", 3, "--mean", 0.5, "--std", 0.5
ARRAYS = plain_vit.random_arrays(depth=1)
OTHER = {name: array + 1 for name, array in ARRAYS.items()}


def prefixed(prefix, arrays=ARRAYS):
    """The arrays under longer names."""
    return {prefix + name: array for name, array in arrays.items()}


def same(path, key=None, arrays=ARRAYS):
    """Whether these arrays, under these names, are read of a file."""
    found = open_weights(str(path), key).arrays
    return found.keys() == arrays.keys() and all((found[n] == a).all() for n, a in arrays.items())


PREFIXES = [
    "module.",
    "encoder.",
    "backbone.",
    "model.",
    "_orig_mod.",
    "base_encoder.",
    "model.encoder.vit.",
    "module._orig_mod.backbone.",
    "teacher.",
]


def test_a_prefix_of_all_names(tmp_path):
    for prefix in PREFIXES:
        assert same(file_of(tmp_path, prefixed(prefix)))
    wrapped = {n.replace(".0.", ".0._fsdp_wrapped_module."): a for n, a in ARRAYS.items()}
    assert same(file_of(tmp_path, wrapped))
    twice = ARRAYS | {"_orig_mod.norm.bias": ARRAYS["norm.bias"]}
    with pytest.raises(UserError, match="has arrays whose names differ only in a wrapper's"):
        same(file_of(tmp_path, twice))


def test_names_beside_a_prefix_are_not_dropped(tmp_path, capsys):
    path = file_of(tmp_path, prefixed("backbone.") | {"head.mlp.0.weight": np.ones((3, 48), "f4")})
    line = refused(capsys, tmp_path, path, *SAID)
    assert "has unknown arrays: head.mlp.0.weight; --key backbone leaves them out" in line
    assert same(path, "backbone")
    out = tmp_path / "out"
    assert run("weights", "import", path, "--out", out, *SAID, "--allow", "^head") == 0
    assert "head.mlp.0.weight" in capsys.readouterr().out


def test_several_sets_of_weights(tmp_path, capsys):
    both = prefixed("module.base_encoder.") | prefixed("module.momentum_encoder.", OTHER)
    path = file_of(tmp_path, both | {"module.predictor.0.weight": np.ones((3, 48), "f4")})
    line = refused(capsys, tmp_path, path, *SAID)
    assert "holds 2 sets of weights, module.base_encoder (18 arrays), module.momentum_enc" in line
    assert line.endswith(f"mae-jax weights import {path} --key module.base_encoder")
    assert same(path, "module.base_encoder") and same(path, "module.momentum_encoder", OTHER)
    line = refused(capsys, tmp_path, path, *SAID, "--key", "student")
    assert "no weights under --key student: choose module.base_encoder, module.momentum_" in line
    line = refused(capsys, tmp_path, path, *SAID, "--key", "module")
    assert "holds 2 sets of weights under --key module, module.base_encoder (18" in line
    out = tmp_path / "base"
    assert run("weights", "import", path, "--out", out, *SAID, "--key", "module.base_encoder") == 0
    path = file_of(tmp_path, ARRAYS | prefixed("teacher.", OTHER))
    assert "2 sets of weights, . (18 arrays), teacher (18" in refused(capsys, tmp_path, path, *SAID)
    line = refused(capsys, tmp_path, path, "--key", ".", *SAID)
    assert "unknown arrays: teacher.blocks.0.attn.proj.bias, teacher." in line
    assert same(path, "teacher", OTHER)


def test_nested_dictionaries_of_pytorch(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="a .pth file needs PyTorch")
    tensors = lambda arrays: {n: torch.tensor(a) for n, a in arrays.items()}
    mine, other = tensors(ARRAYS), tensors(OTHER)
    heads = {"head.0.weight": torch.ones(3, 48)}
    more = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "arch": "vit"}
    for content, key in (
        ({"state_dict": prefixed("module.", mine)}, None),
        ({"target_encoder": mine}, None),
        ({"model": None, "ema": {"shadow": mine}}, None),
        ({"models": [mine]}, None),
        (
            {"student": prefixed("module.", other), "teacher": prefixed("backbone.", mine)},
            "teacher",
        ),
        ({"teacher": prefixed("backbone.", mine) | heads, "student": other}, "teacher.backbone"),
        ({"encoder": other, "target_encoder": prefixed("module.", mine)}, "target_encoder"),
        ({"state_dict": other, "state_dict_ema": mine}, "state_dict_ema"),
    ):
        for name in ("a.pth.tar", "a.ckpt", "weights"):
            torch.save(content | more, tmp_path / name)
        assert same(tmp_path / "weights", key) and same(tmp_path / "a.pth.tar", key)
        if key:
            line = refused(capsys, tmp_path, tmp_path / "a.ckpt", *SAID)
            assert "holds 2 sets of weights, " in line and key.split(".")[0] in line
    assert len(origin(str(tmp_path / "weights"))["digest"]) == 16
    content = {"a": {}}
    content["a"]["b"] = content  # which holds itself
    torch.save(content | {"state_dict": mine}, tmp_path / "weights")
    assert same(tmp_path / "weights")
    for content, line in (
        ({"epoch": 3}, "holds no named weights, but dict"),
        ([3], "holds no named weights, but list"),
        ({"visual.conv1.weight": torch.ones(3)}, "another model, it looks like CLIP in the file"),
        (mine | {"norm.bias": torch.ones(48, dtype=torch.complex64)}, "norm.bias in"),
        (
            mine | {"norm.bias": torch.ones(48).to(torch.float8_e5m2)},
            "is float8_e5m2, not supported",
        ),
        (mine | {"norm.bias": torch.ones(48).to_sparse()}, "is sparse_coo, not supported: save"),
        (mine | {"norm.bias": torch.ones(48, dtype=torch.int8)}, "norm.bias is int8: weights"),
        (mine | {"norm.bias": torch.empty(48, device="meta")}, "without data"),
    ):
        torch.save(content, tmp_path / "weights")
        assert line in refused(capsys, tmp_path, tmp_path / "weights", *SAID)
    shared = mine | {"norm.weight": mine["norm.bias"]}  # one storage
    torch.save(shared, tmp_path / "weights")
    assert same(tmp_path / "weights", arrays=ARRAYS | {"norm.weight": ARRAYS["norm.bias"]})


def bytes_of_tar():
    """A tar archive with an empty file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


def bytes_of_zip(name):
    """A zip archive with an empty file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "")
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 343\n"
FILES = {
    "model.safetensors": (
        LFS,
        "is a Git LFS pointer, not the weights: run `",
    ),
    "a.pth": (LFS, "is a Git LFS pointer"),
    "b.pth": (b"", "is empty (0 bytes): copy or download it again"),
    "c.safetensors": (b"", "is empty (0 bytes)"),
    "c.pth": (b"<!DOCTYPE html><html>", "is a web page, not weights"),
    "d.pt": (b"\n<html><body>Sign in", "is a web page, not weights"),
    "m.gguf": (b"GGUF\3\0\0\0", "is a GGUF file of quantized weights"),
    "flax_model.msgpack": (
        b"\x81\xa6params",
        "is a Flax file: load it in transformers and write .saf",
    ),
    "tf_model.h5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file of Keras or TensorFlow"),
    "model.onnx": (b"\x08\x08\x12\x07pytorch", "is an ONNX file"),
    "B_16.npz": (bytes_of_zip("a.npy"), "is a NumPy archive"),
    "a.npy": (b"\x93NUMPY\1\0", "is one NumPy array without names"),
    "k.keras": (bytes_of_zip("model.weights.h5"), "is a Keras file"),
    "e.zip": (bytes_of_zip("model.safetensors"), "is an archive: unpack it"),
    "e.pth.tar": (bytes_of_tar(), "is a tar archive: unpack it"),
    "f.pth.gz": (gzip.compress(b"x"), "is a gzip archive: unpack it"),
    "s.pt": (bytes_of_zip("s/constants.pkl"), "is an archive"),
    "model.ckpt.index": (b"\0\0", "is a TensorFlow checkpoint"),
    "notes.txt": (b"hello", "is no file of weights: pass one of .safetensors, .pth"),
    "x.safetensors": (b"hello, this is text", "is damaged, or no safetensors file"),
    "x.pth": (b"hello, this is text", "is damaged, or no PyTorch file"),
}


def test_files_without_weights(tmp_path, capsys):
    for name, (content, line) in FILES.items():
        (tmp_path / name).write_bytes(content)
        said = refused(capsys, tmp_path, tmp_path / name)
        assert f"{tmp_path / name} {line}" in said
        (tmp_path / name).unlink()
    float8 = np.ones(48, ml_dtypes.float8_e4m3fn)
    path = file_of(tmp_path, ARRAYS | {"norm.bias": float8})
    assert f"norm.bias in {path} has the unsupported type F8_E4M3: " in refused(
        capsys, tmp_path, path
    )
    path.rename(tmp_path / "anything.at.all")
    assert "type F8_E4M3" in refused(capsys, tmp_path, tmp_path / "anything.at.all")


def test_a_program_of_torchscript(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="it makes the file")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "a.pt")
    assert "is a TorchScript program, which" in refused(capsys, tmp_path, tmp_path / "a.pt")


def test_a_damaged_note_of_ours(tmp_path, capsys):
    for text in ("{", "[]"):
        save_file(ARRAYS, tmp_path / "a.safetensors", metadata={"mae_jax": text})
        line = refused(capsys, tmp_path, tmp_path / "a.safetensors")
        assert "is damaged: its 'mae_jax' entry holds no JSON object" in line


def test_folders_without_a_model(tmp_path, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "has no .safetensors or .bin file" in refused(capsys, tmp_path, folder)
    (folder / "flax_model.msgpack").write_bytes(b"x")
    assert "; flax_model.msgpack is a Flax file: " in refused(capsys, tmp_path, folder)
    (folder / "checkpoint.pth").write_bytes(b"x")
    assert "; checkpoint.pth is a file of weights: pass it" in refused(capsys, tmp_path, folder)
    (folder / "model.safetensors").write_bytes(LFS)
    line = refused(capsys, tmp_path, folder)
    assert f"{folder / 'model.safetensors'} is a Git LFS pointer" in line
    save_file(ARRAYS, folder / "model.safetensors")
    assert same(folder)  # without a config.json
    (folder / "config.json").write_text(json.dumps(dict(model_type="dinov2", hidden_size=48)))
    assert "another model, model_type='dinov2' in its" in refused(capsys, tmp_path, folder)
    (folder / "config.json").unlink()
    index = folder / "model.safetensors.index.json"
    for content, line in (
        ({"weight_map": {}}, "is damaged: it has no weight_map"),
        ({"weight_map": {"a": 3}}, "is damaged: it has no weight_map"),
        ({"weight_map": {"a": "model.safetensors"}}, "lacks a and 0 more arrays that"),
        ({"weight_map": {"a": "b.safetensors"}}, "lacks b.safetensors, which model.safetensors"),
    ):
        index.write_text(json.dumps(content))
        assert line in refused(capsys, tmp_path, folder)
    save_file({"norm.bias": ARRAYS["norm.bias"]}, folder / "b.safetensors")
    arrays = dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")
    index.write_text(json.dumps({"weight_map": arrays | {"norm.bias": "b.safetensors"}}))
    assert "has norm.bias in model.safetensors and in ano" in refused(capsys, tmp_path, folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "is a LoRA or other PEFT adapter, not" in refused(capsys, tmp_path, folder)
