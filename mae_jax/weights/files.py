"""Reads weights from safetensors, PyTorch files, pickles of arrays, and folders of Hugging Face."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from mae_jax.types import UserError
from mae_jax.weights.hub import from_hub
from mae_jax.weights.kinds import ENDINGS, TORCH, kind_of
from mae_jax.weights.model import Found
from mae_jax.weights.parts import Groups, part_of
from mae_jax.weights.pickled import read_pickle
from mae_jax.weights.pytorch import read_torch, to_numpy

OURS = "mae_jax"
"""Key of the metadata entry in which this package stores facts that the arrays do not contain."""


DTYPES = ("F16", "BF16", "F32", "F64", "BOOL", "U8", "I8", "I16", "I32", "I64")
"""Types of safetensors that are read; weights have one of the first four."""


def open_weights(source: str, key: str | None = None, layout: str | None = None) -> Found:
    """Reads a file, a folder or hf://org/name.

    Args:
        source: the path.
        key: the set of weights to read from a file with several, see `parts.py`; None: the only
            one.
        layout: the layout of the names; None: any of this package.

    Raises:
        UserError: the file cannot be read, has values that are not finite, or could run code.
    """
    path = from_hub(source) if source.startswith("hf://") else Path(source).expanduser()
    if path.is_dir():
        files = _files(path)
    elif path.is_file():
        files = [path]
    else:
        what = f"{source} is no file" if path.exists() else f"there is no {source}"
        raise UserError(f"{what}: pass a file, a folder or hf://org/name")
    groups: dict[str, dict[str, Any]] = {}
    notes: dict[str, Any] = {}
    for file in files:
        loaded, notes = _read(file)
        for prefix, arrays in loaded.items():
            for twice in sorted(arrays.keys() & groups.get(prefix, {}).keys()):
                raise UserError(f"{path} has {twice} in {file.name} and in another shard")
            groups.setdefault(prefix, {}).update(arrays)
    if path.is_dir():
        _check_index(path, files, groups)
    name = str(path)
    part = part_of(groups, key, name, layout)
    arrays = {
        n: a if isinstance(a, np.ndarray) else to_numpy(n, a, name) for n, a in part.arrays.items()
    }
    check_finite(arrays, name)
    described = _described(files[0])
    return Found(arrays, *described, notes, name, part.key, tuple(part.beside))


def _read(path: Path) -> tuple[Groups, dict[str, Any]]:
    """The arrays of one file (PyTorch tensors unconverted), and our metadata."""
    kind = kind_of(path)
    if kind == "pickle":
        return read_pickle(path), {}
    if kind == "torch":
        groups, text = read_torch(path, OURS)
        return groups, _parsed(text, path)
    arrays, notes = read_safetensors(path)
    return {"": arrays}, notes


def check_finite(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Raises UserError if any value is not finite in float32."""
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32, copy=False)).all()
        if not finite:
            raise UserError(f"{name} in {where} has values that are not finite (NaN or infinity)")


def _files(path: Path) -> list[Path]:
    """The files of weights in a folder of Hugging Face: one, or all shards of one model."""
    if (path / "adapter_config.json").is_file():
        raise UserError(
            f"{path} is a LoRA or other PEFT adapter, not a model: merge it, "
            "model.merge_and_unload().save_pretrained(FOLDER)"
        )
    suffix = ".safetensors" if any(path.glob("*.safetensors*")) else ".bin"
    files = sorted(path.glob(f"*{suffix}"))
    for index in path.glob(f"*{suffix}.index.json"):
        files = sorted({path / name for name in _weight_map(index).values()})
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise UserError(
                f"{path} lacks {', '.join(missing)}, which {index.name} names: {len(missing)} of "
                f"{len(files)} shards; download them"
            )
    if not files:
        known = lambda file: file.suffix in (*ENDINGS, *TORCH) and file.suffix != ".json"
        others = [file for file in sorted(path.iterdir()) if known(file) and file.is_file()]
        what = ENDINGS.get(others[0].suffix, "is a file of weights: pass it") if others else ""
        more = f"; {others[0].name} {what}" if others else ""
        raise UserError(f"{path} has no .safetensors or .bin file: pass a run, or a model{more}")
    if len(files) > 1 and not any(path.glob(f"*{suffix}.index.json")):
        names = ", ".join(file.name for file in files)
        raise UserError(f"{path} has several files of weights ({names}): pass one of them")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    """Name of an array -> name of its file, from an index of Hugging Face.

    Raises:
        UserError: the index is damaged.
    """
    names = read_json(index).get("weight_map", {})
    if (
        not names
        or not isinstance(names, dict)
        or not all(isinstance(f, str) for f in names.values())
    ):
        raise UserError(f"{index} is damaged: it has no weight_map from arrays to files")
    return names


def _check_index(path: Path, files: list[Path], groups: Groups) -> None:
    """Raises UserError if an index names arrays that its files do not hold."""
    names = {name for arrays in groups.values() for name in arrays}
    for index in path.glob(f"*{files[0].suffix}.index.json"):
        missing = sorted(_weight_map(index).keys() - names)
        if missing:
            raise UserError(
                f"{path} lacks {missing[0]} and {len(missing) - 1} more arrays that {index.name} "
                "names: download its files again"
            )


def _beside(path: Path, name: str) -> dict[str, Any]:
    file = path.parent / name
    return read_json(file) if file.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # neither JSON nor UTF-8
        raise UserError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return content


def _described(path: Path) -> tuple[dict, dict, dict]:
    """Config of the model, of its processor of images, and its tokenizer."""
    config = _beside(path, "config.json")
    known = config if {"model_type", "architecture"} & config.keys() else {}
    if "architecture" in known and "pretrained_cfg" not in known and "mean" in known:
        known = config | {"pretrained_cfg": config}  # of timm before 0.8, without a section for it
    processor = _beside(path, "preprocessor_config.json")
    if not processor:  # transformers 5 writes that of models of several inputs as a section
        parts = _beside(path, "processor_config.json")
        processor = parts.get("image_processor", {})
    return known, processor, _beside(path, "tokenizer.json")


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a .safetensors file, and the metadata that this package wrote into it.

    Raises:
        UserError: the file does not exist or is damaged, or an array has an unsupported type.
    """
    with _opened(path) as file:
        names = list(file.keys())
        for name in names:
            kind = file.get_slice(name).get_dtype()
            if kind not in DTYPES:
                raise UserError(
                    f"{name} in {path} has the unsupported type {kind}: save the weights as "
                    "float32, float16 or bfloat16"
                )
        return {name: file.get_tensor(name) for name in names}, _notes(file, path)


def read_notes(path: Path) -> dict[str, Any]:
    """The metadata that this package wrote into a .safetensors file; reads no arrays.

    Raises:
        UserError: the file does not exist or is damaged.
    """
    with _opened(path) as file:
        return _notes(file, path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    if not path.is_file():
        raise UserError(f"there is no {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, TypeError) as error:
        raise UserError(f"{path} is damaged, or no safetensors file ({error})") from error


def _notes(file: safe_open, path: Path) -> dict[str, Any]:
    return _parsed((file.metadata() or {}).get(OURS, "{}"), path)


def _parsed(text: Any, path: Path) -> dict[str, Any]:
    try:
        notes = json.loads(text)
    except (TypeError, ValueError):
        notes = None
    if not isinstance(notes, dict):
        raise UserError(f"{path} is damaged: its {OURS!r} entry holds no JSON object")
    return notes
