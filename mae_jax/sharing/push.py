"""Uploads a trained model with its model card to the Hugging Face hub."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mae_jax import weights
from mae_jax.errors import UserError
from mae_jax.sharing.card import write_card
from mae_jax.sharing.facts import Facts, read_facts
from mae_jax.weights.export import convert
from mae_jax.weights.hub import upload
from mae_jax.weights.layouts import find
from mae_jax.weights.processor import Images
from mae_jax.workdir import CLASSES

OWN = "mae_jax"
"""Name of the library's own layout, which holds every model: a folder of imported weights."""
CARD = "README.md"


def token_of(environment: Mapping[str, str]) -> str:
    """The token of the hub in the environment variable HF_TOKEN.

    Raises:
        UserError: it is not set.
    """
    if not environment.get("HF_TOKEN", "").strip():
        raise UserError("--token-from-env: the environment variable HF_TOKEN is not set")
    return environment["HF_TOKEN"].strip()


def push_run(run: Path, repo: str, *, layout: str, **options: Any) -> str:
    """Exports a run with its card and uploads both.

    Args:
        run: workdir of a run, or a folder of imported weights.
        repo: org/name on the hub; created if missing.
        layout: 'mae_jax', or a layout of `weights.layouts`.
        options: of `upload`.

    Returns:
        The address of the model.

    Raises:
        UserError: the layout cannot hold the model, or see `upload`.
    """
    facts = read_facts(run)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write_model(facts, folder, layout)
        copy_figures(facts, folder)
        kept = facts._replace(figures=sorted((folder / "figures").glob("*.png")))
        write_card(kept, folder / CARD, where=f"hf://{repo}", layout=layout)
        return upload(folder, repo, **options)


def push_folder(folder: Path, repo: str, **options: Any) -> str:
    """Uploads a folder as it is; for arguments and result see `push_run`.

    Raises:
        UserError: no such folder, a workdir, or one without weights.
    """
    if not folder.is_dir():
        raise UserError(f"--path {folder}: there is no such folder")
    if (folder / "checkpoints").is_dir():
        raise UserError(f"--path {folder} is the workdir of a run: pass it as --run")
    if not any(file.suffix in weights.SUFFIXES for file in folder.iterdir()):
        raise UserError(f"--path {folder} has no weights: export a run there, or pass --run")
    return upload(folder, repo, **options)


def write_model(facts: Facts, out: Path, layout: str) -> None:
    """Writes the weights of a run into a folder.

    Raises:
        UserError: the layout cannot hold the model.
    """
    model = facts.model
    if layout == OWN:
        transform = facts.config.data.eval_transform
        if model.image is None:
            raise UserError("the run does not record the size of its images: train it further")
        weights.write_run(model._replace(images=Images(transform, "")), out)
        if (facts.folder / CLASSES).is_file():
            shutil.copy(facts.folder / CLASSES, out)
        return
    try:
        convert(model, layout)
    except UserError as error:
        raise UserError(f"{error} (or --layout {OWN}, which holds every model)") from error
    one_file = find(layout).describe is None
    weights.write(model, out / "model.safetensors" if one_file else out, layout)


def copy_figures(facts: Facts, folder: Path) -> None:
    """Copies the figures of a run into a folder of weights, for its card."""
    for path in facts.figures:
        (folder / "figures").mkdir(exist_ok=True)
        shutil.copy(path, folder / "figures" / path.name)


def card_beside(run: Path, out: Path, layout: str | None) -> Path | None:
    """Writes a model card beside exported weights: into a folder, or into the folder of a file if
    it holds nothing else.

    Args:
        run: the run that was exported.
        out: the file or folder.
        layout: layout of the weights; None: a function.

    Returns:
        The card; None: there is one, or the folder holds other files.
    """
    folder = out if out.is_dir() else out.absolute().parent
    names = {path.name for path in folder.iterdir()} - {out.name, f"{out.name}.data"}
    if (folder / CARD).exists() or (folder != out and names):
        return None
    facts = read_facts(run)
    copy_figures(facts, folder)
    kept = facts._replace(figures=sorted((folder / "figures").glob("*.png")))
    return write_card(kept, folder / CARD, where=os.fspath(out), layout=layout)
