"""Weights of our runs: from the newest checkpoint of a run, or from a folder that `mae-jax weights
import` wrote. Such a folder has the config of a run, and weights in place of checkpoints, so that
all commands accept it as a run.
"""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from mae_jax.config import to_json
from mae_jax.configs.common import base
from mae_jax.data import vocabulary
from mae_jax.engine.checkpoint import read_leaves
from mae_jax.engine.transfer import transfer
from mae_jax.ops.norm import EPSILON
from mae_jax.spec import arguments
from mae_jax.types import Skips, TrainState, UserError
from mae_jax.weights.files import read_json, read_notes, read_safetensors
from mae_jax.weights.model import Model, portable_args
from mae_jax.weights.saving import fresh_folder, write_file
from mae_jax.workdir import WEIGHTS, is_folder_of_weights, read_config


def is_run(source: str | Path) -> bool:
    """Whether this is a workdir, or a folder that `weights import` wrote."""
    path = Path(source).expanduser() / "config.json"
    return path.is_file() and "method" in read_json(path)


def read_run(folder: Path) -> Model:
    """Reads the weights of a run: their moving average, if the run has one.

    Raises:
        UserError: not a run, a run without checkpoints, or a damaged file.
    """
    method = read_config(folder).method
    args = portable_args(arguments(method.name, "methods", method.args.to_dict()))
    if is_folder_of_weights(folder):
        leaves, _ = read_safetensors(folder / WEIGHTS)
    else:
        leaves = read_leaves(folder / "checkpoints", ("params", "extra"))
    part = lambda prefix: {
        path.removeprefix(prefix): array
        for path, array in leaves.items()
        if path.startswith(prefix)
    }
    averaged = part("extra/ema/") if args.get("ema") else {}
    params, extra = averaged or part("params/"), part("extra/")
    tokenizer = folder / vocabulary.FILE
    texts = read_json(tokenizer) if tokenizer.is_file() else {}
    return Model(params, method.name, args, image_of(folder), extra, vocabulary=texts)


def image_of(folder: Path) -> tuple[int, ...] | None:
    """[*space, C] of the images of a run; None: not known."""
    costs, notes = folder / "costs.json", {}
    if is_folder_of_weights(folder):
        notes = read_notes(folder / WEIGHTS)
    elif costs.is_file():
        notes = read_json(costs)
    return tuple(notes["image"]) if notes.get("image") else None


def read_state(folder: Path, abstract_state: TrainState) -> TrainState:
    """The state of a folder that `weights import` wrote, at step 0 without optimizer moments.

    Args:
        abstract_state: shapes and shardings of the result.
    """
    model, same = read_run(folder), lambda path, array: array
    params = transfer(abstract_state.params, model.params, missing="^$", adapt=same)
    extra = transfer(abstract_state.extra, model.extra, missing="^$", adapt=same)
    zero = jax.device_put(np.int32(0), abstract_state.step.sharding)
    return TrainState(zero, params, (), extra, Skips(zero, zero))


def write_run(model: Model, out: Path) -> None:
    """Writes a folder that commands use like a run.

    Raises:
        UserError: the folder exists.
    """
    with fresh_folder(out) as folder:
        leaves = {f"params/{path}": array for path, array in model.params.items()}
        leaves |= {f"extra/{path}": array for path, array in model.extra.items()}
        write_file(folder / WEIGHTS, leaves, {"image": list(model.image)})
        (folder / "config.json").write_text(to_json(_config(model)) + "\n", encoding="utf-8")
        if model.vocabulary:
            vocabulary.Vocabulary(model.vocabulary).save(folder)


def transform_of(model: Model) -> str:
    """The evaluation transforms of a model: the imported ones, or a resize and center crop."""
    if len(model.image) == 4:  # clips are resized before
        return f"center_crop({tuple(model.image[:3])})"
    height, width = model.image[:2]
    usual = f"resize(({height}, {width}))"
    if height == width:
        usual = f"resize({round(height / 0.875)})|center_crop({height})"
    return model.images.transform or usual


def _config(model: Model) -> ConfigDict:
    """A config with all sections; those for training are not used."""
    resize = transform_of(model)
    config = base()
    config.data.update(train_transform=resize, eval_transform=resize, batch_size=64, fields=())
    config.method = dict(name=model.method, args=model.args)
    config.schedule.update(epochs=1.0, warmup_epochs=0.0)
    if model.method == "mae" and len(model.image) == 4:
        config.evals.figures = "film"  # of `mae-jax reconstruct`
    return config


def only(model: Model, head: int | None) -> Model:
    """Folds the BatchNorm of a linear probe into one head; returns other models unchanged.

    Args:
        head: number of the head, from 0; None: the only one.

    Raises:
        UserError: there are several heads and none is selected, or no such head.
    """
    if model.method != "tasks.linear_probe":
        if head is not None:
            raise UserError(f"--head {head} is for linear probes, and this is {model.method}")
        return model
    layer = model.args.get("layer", -1)  # older workdirs have none
    if layer != -1:
        raise UserError(f"this probe reads layer {layer}, and classifiers the last: train another")
    count = len(model.args["lr_factors"])
    if head is None and count > 1:
        factors = ", ".join(f"{i}: {lr:g}" for i, lr in enumerate(model.args["lr_factors"]))
        raise UserError(f"this probe has {count} heads (lr factors {factors}): pass --head NUMBER")
    if not 0 <= (head or 0) < count:
        raise UserError(f"--head {head}: this probe has heads 0 to {count - 1}")
    params = {path: array for path, array in model.params.items() if not path.startswith("head_")}
    kernel, bias = (
        model.params[f"head_{head or 0}/{leaf}"].astype(np.float64) for leaf in ("kernel", "bias")
    )
    scale = 1 / np.sqrt(model.extra["var"].astype(np.float64) + EPSILON)
    kernel = kernel * scale[:, None]
    params["head/kernel"] = kernel.astype(np.float32)
    params["head/bias"] = (bias - model.extra["mean"] @ kernel).astype(np.float32)
    return model._replace(params=params, extra={})
