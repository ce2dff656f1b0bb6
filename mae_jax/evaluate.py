"""What a run's encoder is worth: evaluators on its features, beside raw pixels and the same encoder
before training; pictures of its reconstructions; its features as a file.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from rich.table import Table

from mae_jax.engine.log import EVAL, Log, read
from mae_jax.engine.mesh import replicated
from mae_jax.engine.step import stream_key
from mae_jax.evals.features import Evaluator, Predict, extract
from mae_jax.progress import Progress
from mae_jax.report.curves import draw_curves
from mae_jax.report.reconstructions import draw_reconstructions, labeled, tiled
from mae_jax.report.tables import drawn, heading, shown
from mae_jax.run import Run
from mae_jax.types import TrainState, UserError
from mae_jax.workdir import read_results, set_aside, write

logger = logging.getLogger(__name__)

Results = dict[str, dict[str, float]]
"""Representation -> metric -> value."""


def run_evaluators(
    run: Run,
    predict: Predict,
    evaluators: Sequence[Evaluator],
    progress: Progress | None = None,
) -> dict[str, float]:
    """The metrics of all evaluators.

    Args:
        progress: reports what is evaluated.
    """
    metrics, data = {}, progress or run.data
    for evaluator in evaluators:
        if progress:
            progress.begin(evaluator.name)
        metrics |= evaluator(predict, data)
    extract.cache_clear()  # what the evaluators shared
    return metrics


def representations(run: Run, state: TrainState) -> dict[str, Callable[[], Predict]]:
    """What the trained encoder is compared with, and itself at the end: each made when called. A
    classifier stands for itself.
    """
    if hasattr(run.method, "classes"):
        return {run.config.method.name: lambda: run.predictor(state)}
    return {
        "raw pixels": lambda: pixels(run),
        "random encoder": lambda: run.predictor(run.fresh()),
        run.config.method.name: lambda: run.predictor(state),
    }


def pixels(run: Run) -> Predict:
    """The baseline of all features: the pixels themselves, in [0, 1]; images with a side of over 32
    are scaled down to it, or the baseline would need more memory than the model.
    """

    def small(images):
        side = (min(images.shape[1], 32), min(images.shape[2], 32))
        shape = (len(images), *side, images.shape[3])
        return jax.image.resize(images / 255.0, shape, "linear").reshape(len(images), -1)

    function = jax.jit(
        lambda batch: {
            "features": small(batch["image"]),
            **{k: v for k, v in batch.items() if k != "image"},
        },
        out_shardings=replicated(run.mesh),
    )
    return lambda batch: function(run.put(batch))


def evaluate(run: Run, state: TrainState, evaluators: Sequence[Evaluator]) -> Results:
    """The evaluators on raw pixels, on the encoder before training, and on the trained one."""
    predictors = representations(run, state)
    with Progress(run.data, len(predictors)) as progress:
        results = {}
        for name, predict in predictors.items():
            progress.turn(name)
            results[name] = run_evaluators(run, predict(), evaluators, progress)
    return results


def during_training(run: Run, state: TrainState, log: Log) -> None:
    """Logs the metrics of the run's evaluators and, where the method draws, its pictures."""
    step = int(state.step)
    metrics = run_evaluators(run, run.predictor(state), run.evals.evaluators)
    if metrics:
        log.write(step, {f"{EVAL}{name}": value for name, value in metrics.items()})
    log_pictures(run, state, log)


def log_pictures(run: Run, state: TrainState, log: Log) -> None:
    """Logs the reconstructions of a few images, where the method draws."""
    if hasattr(run.method, "reconstruct"):
        rows = labeled(pictures(run, state, count=8, seed=0))
        text = "Rows, from the top: " + "; ".join(" ".join(label.split()) for label in rows)
        log.picture(int(state.step), tiled(rows), text)


def table(results: Results, title: str) -> Table:
    """The results as a table; many metrics stand below one another."""
    metrics = list(next(iter(results.values())))
    rows = [["features", *map(heading, metrics)]]
    for name, values in results.items():
        rows.append([name, *(shown(metric, values[metric]) for metric in metrics)])
    return drawn(rows if len(metrics) < 6 else list(zip(*rows, strict=True)), title)


def write_results(path: Path, step: int, results: Results, *, ended_by: str | None = None) -> Path:
    """Writes `results.json`: 'results', added to those that were there of the same step; 'final',
    those with which the run ended, and 'evaluators', the spec that made these, which nothing
    changes.

    Args:
        ended_by: the spec, if these are the final results.
    """
    old = {"step": None}
    if path.exists():
        try:
            old = read_results(path)
        except UserError as error:
            logger.warning("%s; it is set aside as %s", error, set_aside(path).name)
    ended = results if ended_by is not None else None
    if old["step"] == step:
        names = list(dict.fromkeys([*old["results"], *results]))
        results = {name: old["results"].get(name, {}) | results.get(name, {}) for name in names}
        if ended is None:
            ended, ended_by = old["final"], old.get("evaluators")
    found = {"step": step, "results": results, "final": ended, "evaluators": ended_by}
    write(path, json.dumps(found, indent=2))
    return path


def is_evaluated(run: Run, workdir: Path, step: int) -> bool:
    """Whether a workdir has the results of the run's evaluators after a step, and the figures."""
    if not all((workdir / "figures" / name).is_file() for name in figure_names(run)):
        return False
    if not run.evals.evaluators:
        return True
    path = workdir / "results.json"
    try:
        found = read_results(path) if path.is_file() else {}
    except UserError:  # `write_results` sets it aside
        return False
    ended = found.get("step") == step and found.get("final") is not None
    return ended and found.get("evaluators") == run.config.evals.run


def figure_names(run: Run) -> list[str]:
    """What `figures` draws."""
    pictures = ["reconstructions.png"] if hasattr(run.method, "reconstruct") else []
    return ["curves.png", *pictures]


def reconstruct(run: Run, state: TrainState, path: Path, *, count: int = 8, seed: int = 0) -> Path:
    """Draws originals, masked images and reconstructions of the first images of the test split
    (of the training split if there is no other).

    Args:
        path: of the PNG to write.
        count: how many images.
        seed: of the masks.

    Raises:
        UserError: the method does not reconstruct.
    """
    if not hasattr(run.method, "reconstruct"):
        raise UserError(f"method {run.config.method.name!r} does not reconstruct images")
    made = pictures(run, state, count=count, seed=seed)
    return draw_reconstructions(made, path) if jax.process_index() == 0 else path


def pictures(run: Run, state: TrainState, *, count: int, seed: int) -> dict[str, np.ndarray]:
    """What `reconstruct` draws: each kind of picture [count, H, W, C] uint8."""
    split = "test" if "test" in run.data.sources else "train"
    parts = []
    for number, batch in enumerate(run.data.eval(split, limit=count)):
        key = stream_key(seed, "reconstruct", number)
        made = run.reconstruct(state.params, state.extra, run.put(batch), key)
        parts.append(jax.device_get(made))
    mask = np.concatenate([part.pop("valid") for part in parts])
    return {name: np.concatenate([p[name] for p in parts])[mask] for name in parts[0]}


def figures(run: Run, state: TrainState, workdir: Path) -> list[Path]:
    """Draws everything that this run can show into `figures/`."""
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    results = workdir / "results.json"
    drawn = []
    if jax.process_index() == 0:
        baselines = read_results(results)["results"] if results.exists() else {}
        drawn.append(draw_curves(read(workdir / "metrics.jsonl"), baselines, folder / "curves.png"))
    if hasattr(run.method, "reconstruct"):
        drawn.append(reconstruct(run, state, folder / "reconstructions.png"))
    return drawn


def write_features(run: Run, state: TrainState, out: Path) -> tuple[Path, int]:
    """Writes the features of every image of the training source that can be read: `features`
    [N, D] float32, and `names`; where the source has labels, `labels` [N] int32, and where these
    have names, `class_names`.

    Args:
        out: a path that ends in .npz or .safetensors (whose metadata then hold the names, as JSON).

    Returns:
        The path, and how many images were read.
    """
    predict, source = run.predictor(state), run.data.source("train")
    parts, masks, labels = [], [], []
    for batch in run.data.eval("train"):
        outputs = predict(batch)
        masks.append(np.asarray(outputs["valid"]))
        parts.append(np.asarray(outputs["features"])[masks[-1]])
        if "label" in batch:
            labels.append(np.asarray(outputs["label"])[masks[-1]])
    arrays = {"features": np.concatenate(parts)}
    if labels:
        arrays["labels"] = np.concatenate(labels)
    read = np.flatnonzero(np.concatenate(masks))
    names = {"names": [source.name(int(index)) for index in read]}
    if source.class_names:
        names["class_names"] = list(source.class_names)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        np.savez(out, **arrays, **{name: np.array(texts) for name, texts in names.items()})
    else:
        from safetensors.numpy import save_file

        metadata = {name: json.dumps(texts) for name, texts in names.items()}
        save_file(arrays, out, metadata=metadata)
    return out, len(read)
