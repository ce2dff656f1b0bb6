"""Writes files of weights atomically, and overwrites nothing."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mae_jax.paths import check_place
from mae_jax.types import UserError
from mae_jax.weights.files import OURS
from mae_jax.weights.kinds import SUFFIXES


@contextlib.contextmanager
def fresh_folder(out: Path, option: str = "--out") -> Iterator[Path]:
    """A temporary folder that is renamed to `out` on success, and removed on an exception.

    Args:
        option: name of the command-line option, for messages.

    Raises:
        UserError: see `check_new`.
    """
    check_new(out, option)
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(out: Path, option: str = "--out") -> None:
    """Checks that a folder can be created.

    Args:
        option: name of the command-line option, for messages.

    Raises:
        UserError: it exists and is not empty, or cannot be created.
    """
    out = out.absolute()
    if out == Path.cwd() or out.suffix in SUFFIXES:
        raise UserError(f"{option} {out}: must be a new folder, not a file or the current folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} already exists: choose another {option}")
    check_place(out, option)


def write_file(path: Path, arrays: Mapping[str, np.ndarray], notes: Mapping[str, Any]) -> None:
    """Writes .safetensors or, if PyTorch is installed, .pth, atomically.

    Raises:
        UserError: another suffix, an existing file, or PyTorch is missing.
    """
    if path.suffix not in (".safetensors", ".pth"):
        raise UserError(f"--out {path}: the name must end in .safetensors or .pth")
    if path.exists():
        raise UserError(f"{path} already exists: choose another --out")
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    text = json.dumps(notes)
    try:
        if path.suffix == ".safetensors":
            leaves = {name: np.asarray(array) for name, array in arrays.items()}  # numbers, too
            save_file(leaves, temporary, metadata={"format": "pt", OURS: text})
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
