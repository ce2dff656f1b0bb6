"""What a file that is given as weights really is, by its first bytes, then by its name. Only
safetensors and PyTorch's files are read; everything else that people have is named, with the way
from it to one of these.
"""

import zipfile
from pathlib import Path

from mae_jax.types import UserError

TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pyth", ".pkl")
SUFFIXES = (".safetensors", *TORCH)
"""Of files of weights. '.tar' is for '.pth.tar', which is how many save PyTorch's files."""

AGAIN = "copy or download it again"
CONVERT = "load it in transformers and write .safetensors with save_pretrained"
STARTS = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the weights that it stands for: run `git lfs pull` where it was "
        "cloned, or download the file itself",
    ),
    (b"GGUF", "is a GGUF file, of quantized weights: take the .safetensors that it was made of"),
    (b"\x89HDF", f"is an HDF5 file, of Keras or TensorFlow: {CONVERT}(from_tf=True)"),
    (b"<!doctype", f"is a web page, not weights (a login, or a wrong link): {AGAIN}"),
    (b"<html", f"is a web page, not weights (a login, or a wrong link): {AGAIN}"),
    (b"<?xml", f"is an error message of a server, not weights: {AGAIN}"),
    (b"\x1f\x8b", "is a gzip archive: unpack it, and give the file in it"),
    (b"\x93NUMPY", "is one NumPy array without names: give .safetensors"),
)
"""First bytes of a file -> what it is, and the way out."""

ENDINGS = {
    ".onnx": "is an ONNX file, a graph without the layers' names: take the weights that it was "
    "made of",
    ".msgpack": f"is of Flax: {CONVERT}(from_flax=True)",
    ".h5": f"is an HDF5 file, of Keras or TensorFlow: {CONVERT}(from_tf=True)",
    ".keras": "is of Keras: write the arrays to .safetensors under timm's names",
    ".npz": "is a NumPy archive (such as big_vision's): timm reads these and writes .safetensors",
    ".npy": "is one NumPy array without names: give .safetensors",
    ".pb": "is of TensorFlow: take the weights for PyTorch",
    ".index": "is a checkpoint of TensorFlow: take the weights for PyTorch",
    ".tflite": "is of TensorFlow Lite: take the weights for PyTorch",
    ".gguf": "is a GGUF file, of quantized weights: take the .safetensors that it was made of",
    ".json": "describes weights and holds none: give the folder that it is in",
    ".zip": "is an archive: unpack it, and give the file in it",
}
"""Ending of a file's name -> what it is, and the way out."""


def kind_of(path: Path) -> str:
    """'safetensors' or 'torch', whatever the file is called.

    Raises:
        UserError: it is neither; the message says what it is.
    """
    with path.open("rb") as file:
        start = file.read(262)
    if not start:
        raise UserError(f"{path} is empty (0 bytes): {AGAIN}")
    for first, what in STARTS:
        if start.lstrip().startswith(first) or start.lstrip().lower().startswith(first):
            raise UserError(f"{path} {what}")
    if start[:4] == b"PK\x03\x04" and zipfile.is_zipfile(path):
        return _zipped(path)
    if start[257:262] == b"ustar":
        raise UserError(f"{path} is a tar archive: unpack it, and give the file in it")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "safetensors"
    if path.suffix == ".safetensors":
        return "safetensors"  # a damaged one
    if path.suffix in TORCH:
        return "torch"
    if path.suffix in ENDINGS:
        raise UserError(f"{path} {ENDINGS[path.suffix]}")
    if start[:1] == b"\x80":
        return "torch"
    raise UserError(f"{path} is no file of weights: choose {', '.join(SUFFIXES)}")


def _zipped(path: Path) -> str:
    """A file of PyTorch's, unless it is another archive."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("data.pkl") for name in names):
        if any(name.endswith("constants.pkl") for name in names):
            raise UserError(
                f"{path} is a TorchScript program, which holds code: save the weights alone, "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
            )
        return "torch"
    if any(name.endswith(".npy") for name in names):
        raise UserError(f"{path} {ENDINGS['.npz']}")
    what = ENDINGS[".keras" if "model.weights.h5" in names else ".zip"]
    raise UserError(f"{path} {what}")
