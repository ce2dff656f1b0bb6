"""Weights in files: safetensors, PyTorch's, and folders of Hugging Face."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from mae_jax.types import UserError
from mae_jax.weights.hub import from_hub
from mae_jax.weights.kinds import ENDINGS, TORCH, kind_of
from mae_jax.weights.parts import Groups, part_of
from mae_jax.weights.pytorch import read_torch, to_numpy

OURS = "mae_jax"
"""Key of the metadata in which this package says what arrays alone do not."""


DTYPES = ("F16", "BF16", "F32", "F64", "BOOL", "U8", "I8", "I16", "I32", "I64")
"""Of safetensors, that are read; weights are of the first four."""


class Found(NamedTuple):
    """What a file or folder holds."""

    arrays: dict[str, np.ndarray]
    """By their names, without a prefix that all of them have."""
    config: dict[str, Any]
    """config.json of the folder; {} if there is none."""
    processor: dict[str, Any]
    """preprocessor_config.json of the folder; {} if there is none."""
    notes: dict[str, Any]
    """What this package wrote beside the arrays; {} if it did not."""
    name: str
    key: str = ""
    """The path through nested dictionaries and prefixes to these arrays; '': none."""
    beside: tuple[str, ...] = ()
    """Names of what is in the same dictionary under other prefixes, and was not read."""


def open_weights(source: str, key: str | None = None, layout: str | None = None) -> Found:
    """Reads a file, a folder or hf://org/name.

    Args:
        source: where the weights are.
        key: which ones of a file that holds several, see `parts.py`; None: it holds one.
        layout: the only one to expect; None: any of this package.

    Raises:
        UserError: it cannot be read, holds what is not finite, or would run code.
    """
    path = from_hub(source) if source.startswith("hf://") else Path(source).expanduser()
    if path.is_dir():
        files = _files(path)
    elif path.is_file():
        files = [path]
    else:
        what = f"{source} is no file" if path.exists() else f"there is no {source}"
        raise UserError(f"{what}: give a file, a folder or hf://org/name")
    groups: dict[str, dict[str, Any]] = {}
    notes: dict[str, Any] = {}
    for file in files:
        parts, notes = _read(file)
        for place, arrays in parts.items():
            for twice in sorted(arrays.keys() & groups.get(place, {}).keys()):
                raise UserError(f"{path} holds {twice} in {file.name} and in another part")
            groups.setdefault(place, {}).update(arrays)
    if path.is_dir():
        _check_index(path, files, groups)
    name = str(path)
    part = part_of(groups, key, name, layout)
    arrays = {
        n: a if isinstance(a, np.ndarray) else to_numpy(n, a, name) for n, a in part.arrays.items()
    }
    check_finite(arrays, name)
    config, processor = _described(files[0])
    return Found(arrays, config, processor, notes, name, part.key, tuple(part.beside))


def _read(path: Path) -> tuple[Groups, dict[str, Any]]:
    """The arrays of one file, tensors of PyTorch's as they are; and our notes."""
    if kind_of(path) == "torch":
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
            raise UserError(f"{name} in {where} has values that are not finite: not used")


def _files(path: Path) -> list[Path]:
    """The files of weights in a folder of Hugging Face: one, or all parts of one model."""
    if (path / "adapter_config.json").is_file():
        raise UserError(
            f"{path} is a LoRA or other adapter of PEFT, not a model: merge it, "
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
                f"{len(files)} parts; download them"
            )
    if not files:
        known = lambda file: file.suffix in (*ENDINGS, *TORCH) and file.suffix != ".json"
        others = [file for file in sorted(path.iterdir()) if known(file) and file.is_file()]
        what = ENDINGS.get(others[0].suffix, "is a file of weights: name it") if others else ""
        more = f"; {others[0].name} {what}" if others else ""
        raise UserError(
            f"{path} has no .safetensors and no .bin file: give a run, or a model{more}"
        )
    if len(files) > 1 and not any(path.glob(f"*{suffix}.index.json")):
        names = ", ".join(file.name for file in files)
        raise UserError(f"{path} has several files of weights ({names}): name one of them")
    return files


def _weight_map(index: Path) -> dict[str, str]:
    """Name of an array -> file, of an index that Hugging Face writes.

    Raises:
        UserError: it is damaged.
    """
    names = read_json(index).get("weight_map", {})
    if (
        not names
        or not isinstance(names, dict)
        or not all(isinstance(f, str) for f in names.values())
    ):
        raise UserError(f"{index} is damaged: it has no weight_map of names and files")
    return names


def _check_index(path: Path, files: list[Path], groups: Groups) -> None:
    """Raises UserError if an index names arrays that its files do not hold."""
    found = {name for arrays in groups.values() for name in arrays}
    for index in path.glob(f"*{files[0].suffix}.index.json"):
        missing = sorted(_weight_map(index).keys() - found)
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
    if "architecture" in known and "pretrained_cfg" not in known and "mean" in known:
        known = config | {"pretrained_cfg": config}  # of timm before 0.8, without a section for it
    return known, _beside(path, "preprocessor_config.json")


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a .safetensors file, and what this package wrote beside them.

    Raises:
        UserError: there is none, or it is damaged.
    """
    with _opened(path) as file:
        names = list(file.keys())
        for name in names:
            kind = file.get_slice(name).get_dtype()
            if kind not in DTYPES:
                raise UserError(
                    f"{name} in {path} is {kind}, not read here: save the weights as float32, "
                    "float16 or bfloat16"
                )
        return {name: file.get_tensor(name) for name in names}, _notes(file, path)


def read_notes(path: Path) -> dict[str, Any]:
    """What this package wrote beside the arrays of a .safetensors file, which are not read.

    Raises:
        UserError: there is none, or it is damaged.
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
        raise UserError(f"{path} is damaged: its {OURS!r} entry holds no names")
    return notes
