"""Weights in files: safetensors, PyTorch's, folders of Hugging Face, and its hub. Nothing that a
file says is ever run: PyTorch's are read by its weights-only loader alone.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mae_jax.types import UserError

TORCH = (".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", *TORCH)
"""Of files of weights."""
OURS = "mae_jax"
"""Key of the metadata in which this package says what arrays alone do not."""


class Found(NamedTuple):
    """What a file or folder holds."""

    arrays: dict[str, np.ndarray]
    config: dict[str, Any]
    """config.json of the folder; {} if there is none."""
    processor: dict[str, Any]
    """preprocessor_config.json of the folder; {} if there is none."""
    notes: dict[str, Any]
    """What this package wrote beside the arrays; {} if it did not."""
    name: str


def open_weights(source: str) -> Found:
    """Reads a file, a folder or hf://org/name.

    Raises:
        UserError: it cannot be read, holds what is not finite, or would run code.
    """
    path = from_hub(source) if source.startswith("hf://") else Path(source).expanduser()
    if path.is_dir():
        found = _folder(path)
    elif path.suffix == ".safetensors":
        found = Found(*_safetensors(path), name=str(path))
    elif path.suffix in TORCH:
        found = Found(*_torch(path), name=str(path))
    elif path.is_file():
        raise UserError(f"{path} is no file of weights: choose .safetensors, {', '.join(TORCH)}")
    else:
        raise UserError(f"there is no {source}: give a file, a folder or hf://org/name")
    if found.arrays and all(name.startswith("module.") for name in found.arrays):
        # What PyTorch's DataParallel puts before all names.
        plain = {name.removeprefix("module."): a for name, a in found.arrays.items()}
        found = found._replace(arrays=plain)
    check_finite(found.arrays, found.name)
    return found


def check_finite(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Raises UserError if any value is not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array.astype(np.float32, copy=False)).all():
            raise UserError(f"{name} in {where} has values that are not finite: not used")


def _folder(path: Path) -> Found:
    """A folder of Hugging Face: all files of weights in it, and what stands beside them."""
    suffix = ".safetensors" if any(path.glob("*.safetensors*")) else ".bin"
    files = sorted(path.glob(f"*{suffix}"))
    for index in path.glob(f"*{suffix}.index.json"):
        files = sorted({path / name for name in read_json(index).get("weight_map", {}).values()})
    if not files:
        raise UserError(f"{path} has no .safetensors and no .bin file: give a run, or a model")
    if len(files) > 1 and not any(path.glob(f"*{suffix}.index.json")):
        names = ", ".join(file.name for file in files)
        raise UserError(f"{path} has several files of weights ({names}): name one of them")
    arrays: dict[str, np.ndarray] = {}
    config, processor, notes = {}, {}, {}
    for file in files:
        read = _safetensors if file.suffix == ".safetensors" else _torch
        part, config, processor, notes = read(file)
        arrays |= part
    return Found(arrays, config, processor, notes, str(path))


def _beside(path: Path, name: str) -> dict[str, Any]:
    file = path.parent / name
    return read_json(file) if file.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: there is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # neither JSON nor UTF-8
        raise UserError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no names")
    return content


def _described(path: Path) -> tuple[dict, dict]:
    config = _beside(path, "config.json")
    known = config if {"model_type", "architecture"} & config.keys() else {}
    return known, _beside(path, "preprocessor_config.json")


def _safetensors(path: Path) -> tuple[dict, dict, dict, dict]:
    arrays, notes = read_safetensors(path)
    return arrays, *_described(path), notes


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a .safetensors file, and what this package wrote beside them.

    Raises:
        UserError: there is none, or it is damaged.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _notes(file)  # noqa: SIM118


def read_notes(path: Path) -> dict[str, Any]:
    """What this package wrote beside the arrays of a .safetensors file, which are not read.

    Raises:
        UserError: there is none, or it is damaged.
    """
    with _opened(path) as file:
        return _notes(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    if not path.is_file():
        raise UserError(f"there is no {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, TypeError) as error:
        raise UserError(f"{path} is damaged, or no safetensors file ({error})") from error


def _notes(file: safe_open) -> dict[str, Any]:
    return json.loads((file.metadata() or {}).get(OURS, "{}"))


def _torch(path: Path) -> tuple[dict, dict, dict, dict]:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} needs PyTorch to be read: pip install torch, or give .safetensors"
        ) from error
    if not path.is_file():
        raise UserError(f"there is no {path}")
    try:
        # The official checkpoints hold the arguments of their training beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, for damaged files too
        if "eights only" in str(error) or "WeightsUnpickler" in str(error):
            culprit = re.search(r"GLOBAL (\S+)", str(error))
            what = f" ({culprit[1]})" if culprit else ""
            raise UserError(
                f"{path} is refused: it holds more than weights{what} and could run code when "
                "loaded; ask its author for .safetensors"
            ) from error
        raise UserError(f"{path} is damaged, or no file of PyTorch's ({_line(error)})") from error
    notes = content.get(OURS, "{}") if isinstance(content, dict) else "{}"
    for key in ("model", "state_dict", "module"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    arrays = content if isinstance(content, dict) else {}
    if not arrays or not all(isinstance(value, torch.Tensor) for value in arrays.values()):
        raise UserError(f"{path} holds no weights by name, but {type(content).__name__}")
    arrays = {name: _numpy(value, torch) for name, value in arrays.items()}
    return arrays, *_described(path), json.loads(notes)


def _numpy(tensor, torch) -> np.ndarray:
    tensor = tensor.detach().contiguous()
    if str(tensor.dtype) == "torch.bfloat16":  # of which PyTorch's NumPy knows nothing
        return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
    return tensor.numpy()


def from_hub(source: str) -> Path:
    """The folder in the local cache of what hf://org/name is on the hub of Hugging Face.

    Raises:
        UserError: there is no such model, or no network and nothing in the cache.
    """
    name, _, revision = source.removeprefix("hf://").partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ImportError as error:
        raise UserError(f"{source} needs huggingface_hub: pip install huggingface_hub") from error

    def fetched(patterns: list[str]) -> Path:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))

    try:
        folder = fetched(["*.json", "*.safetensors"])
        if not any(folder.glob("*.safetensors")):
            folder = fetched(["*.json", "*.bin"])
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{source} is not in the local cache and the hub cannot be reached: go online once, "
            f"or copy its folder here and give its path"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"the hub has no model {name!r}, or it asks for a login") from error
    except HFValidationError as error:
        raise UserError(f"{source} is no name on the hub: write hf://org/name") from error
    except Exception as error:  # of many kinds, those of whichever HTTP client it has among them
        raise UserError(f"{source} could not be fetched ({_line(error)})") from error
    return folder


def _line(error: Exception) -> str:
    """The first line of what an error says, or its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` if all inside goes well, and leaves nothing otherwise.

    Raises:
        UserError: `out` is there already, and not empty.
    """
    out = out.absolute()
    if out == Path.cwd() or out.suffix in SUFFIXES:
        raise UserError(f"--out {out}: a folder is made, give a name for it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already: give another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_file(path: Path, arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> None:
    """Writes .safetensors, or with PyTorch's help .pth, whole or not at all.

    Raises:
        UserError: another suffix, a file that is there already, or PyTorch is missing.
    """
    if path.suffix not in (".safetensors", ".pth"):
        raise UserError(f"--out {path}: the name must end in .safetensors or .pth")
    if path.exists():
        raise UserError(f"{path} is there already: give another --out")
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    text = json.dumps(notes)
    try:
        if path.suffix == ".safetensors":
            save_file(dict(arrays), temporary, metadata={"format": "pt", OURS: text})
        else:
            _save_torch(temporary, arrays, text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _save_torch(path: Path, arrays: Mapping[str, np.ndarray], notes: str) -> None:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            "a .pth file needs PyTorch: pip install torch, or let --out end in .safetensors"
        ) from error
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    torch.save({"model": tensors, OURS: notes}, path)
