"""Detects the type of a file of weights, by its first bytes, then by its name. Only safetensors,
PyTorch files and pickles of NumPy arrays are read; for other common types the error message names
the conversion.
"""

import zipfile
from pathlib import Path

from mae_jax.types import UserError

TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pyth", ".pkl")
SUFFIXES = (".safetensors", *TORCH)
"""Suffixes of files of weights. '.tar' is for '.pth.tar', a common name of PyTorch files."""

LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""In the first bytes of PyTorch files before version 1.6: the pickle of a number."""

AGAIN = "copy or download it again"
CONVERT = "load it in transformers and write .safetensors with save_pretrained"
STARTS = (
    (
        b"version https://git-lfs",
        "is a Git LFS pointer, not the weights: run `git lfs pull` in the clone, or download the "
        "file itself",
    ),
    (b"GGUF", "is a GGUF file of quantized weights: use the .safetensors that it was made from"),
    (b"\x89HDF", f"is an HDF5 file of Keras or TensorFlow: {CONVERT}(from_tf=True)"),
    (b"<!doctype", f"is a web page, not weights (a login, or a wrong link): {AGAIN}"),
    (b"<html", f"is a web page, not weights (a login, or a wrong link): {AGAIN}"),
    (b"<?xml", f"is an error message of a server, not weights: {AGAIN}"),
    (b"\x1f\x8b", "is a gzip archive: unpack it, and pass the file in it"),
    (b"\x93NUMPY", "is one NumPy array without names: pass .safetensors"),
)
"""First bytes of a file -> what it is, and the way out."""

ENDINGS = {
    ".onnx": "is an ONNX file, a graph without names of layers: use the weights that it was made "
    "from",
    ".msgpack": f"is a Flax file: {CONVERT}(from_flax=True)",
    ".h5": f"is an HDF5 file of Keras or TensorFlow: {CONVERT}(from_tf=True)",
    ".keras": "is a Keras file: write the arrays to .safetensors under timm's names",
    ".npz": "is a NumPy archive (such as big_vision's): timm reads these and writes .safetensors",
    ".npy": "is one NumPy array without names: pass .safetensors",
    ".pb": "is a TensorFlow file: use the weights for PyTorch",
    ".index": "is a TensorFlow checkpoint: use the weights for PyTorch",
    ".tflite": "is a TensorFlow Lite file: use the weights for PyTorch",
    ".gguf": "is a GGUF file of quantized weights: use the .safetensors that it was made from",
    ".json": "describes weights and holds none: pass the folder that it is in",
    ".zip": "is an archive: unpack it, and pass the file in it",
}
"""Ending of a file's name -> what it is, and the way out."""


def kind_of(path: Path) -> str:
    """The type of a file, 'safetensors', 'torch' or 'pickle' (of NumPy arrays), by its content
    before its name.

    Raises:
        UserError: it has another type, which the message names.
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
        raise UserError(f"{path} is a tar archive: unpack it, and pass the file in it")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return "safetensors"
    if path.suffix == ".safetensors":
        return "safetensors"  # a damaged one
    if start[:1] == b"\x80" and LEGACY not in start[:32]:
        return "pickle"
    if path.suffix in TORCH:
        return "torch"
    if path.suffix in ENDINGS:
        raise UserError(f"{path} {ENDINGS[path.suffix]}")
    if start[:1] == b"\x80":
        return "torch"
    raise UserError(f"{path} is no file of weights: pass one of {', '.join(SUFFIXES)}")


def _zipped(path: Path) -> str:
    """'torch' for a zip archive that PyTorch wrote; other archives raise UserError."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("data.pkl") for name in names):
        if any(name.endswith("constants.pkl") for name in names):
            raise UserError(
                f"{path} is a TorchScript program, which contains code: save only the weights, "
                "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
            )
        return "torch"
    if any(name.endswith(".npy") for name in names):
        raise UserError(f"{path} {ENDINGS['.npz']}")
    what = ENDINGS[".keras" if "model.weights.h5" in names else ".zip"]
    raise UserError(f"{path} {what}")
