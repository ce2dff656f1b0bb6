"""What a run's encoder is worth: evaluators on its features, beside raw pixels and the same encoder
before training; pictures of its reconstructions; its features as a file.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.table import Table

from mae_jax.engine.log import read
from mae_jax.engine.step import stream_key
from mae_jax.evals.features import Predict, extract
from mae_jax.report.curves import draw_curves
from mae_jax.report.reconstructions import draw_reconstructions
from mae_jax.run import Evaluator, Run
from mae_jax.types import TrainState, UserError

Results = dict[str, dict[str, float]]
"""Representation -> metric -> value."""


def run_evaluators(run: Run, predict: Predict, evaluators: Sequence[Evaluator]) -> dict[str, float]:
    """The metrics of all evaluators."""
    metrics = {}
    for evaluator in evaluators:
        metrics |= evaluator(predict, run.data)
    extract.cache_clear()  # what the evaluators shared
    return metrics


def evaluate(run: Run, state: TrainState, evaluators: Sequence[Evaluator]) -> Results:
    """The evaluators on raw pixels, on the encoder before training, and on the trained one."""
    return {
        "raw pixels": run_evaluators(run, run.pixels(), evaluators),
        "random encoder": run_evaluators(run, run.predictor(run.fresh()), evaluators),
        run.config.method.name: run_evaluators(run, run.predictor(state), evaluators),
    }


def table(results: Results, title: str) -> Table:
    """The results as a table of percentages."""
    metrics = list(next(iter(results.values())))
    drawn = Table("features", *(f"{metric} %" for metric in metrics), title=title)
    for name, values in results.items():
        drawn.add_row(name, *(f"{100 * values[metric]:.1f}" for metric in metrics))
    return drawn


def write_results(workdir: Path, step: int, results: Results) -> Path:
    """Writes `results.json`, whole or not at all."""
    path = workdir / "results.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"step": step, "results": results}, indent=2) + "\n")
    os.replace(temporary, path)
    return path


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
    split = "test" if "test" in run.data.sources else "train"
    images = np.concatenate(
        [batch["image"][batch["mask"]] for batch in run.data.eval(split, limit=count)]
    )
    pictures = jax.jit(run.method.reconstruct)(
        state.params, state.extra, {"image": images}, stream_key(seed, "reconstruct", 0)
    )
    return draw_reconstructions(jax.device_get(pictures), path)


def figures(run: Run, state: TrainState, workdir: Path) -> list[Path]:
    """Draws everything that this run can show into `figures/`."""
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    results = workdir / "results.json"
    baselines = json.loads(results.read_text())["results"] if results.exists() else {}
    drawn = [draw_curves(read(workdir / "metrics.jsonl"), baselines, folder / "curves.png")]
    if hasattr(run.method, "reconstruct"):
        drawn.append(reconstruct(run, state, folder / "reconstructions.png"))
    return drawn


def write_features(run: Run, state: TrainState, out: Path) -> Path:
    """Writes the features of every image of the training source: `features` [N, D] float32 and,
    for a folder, the names of the files.

    Args:
        out: a path that ends in .npz or .safetensors (names are then in the metadata, as JSON).

    Raises:
        UserError: another ending.
    """
    if out.suffix not in (".npz", ".safetensors"):
        raise UserError(f"--out {out}: the name must end in .npz or .safetensors")
    predict = run.predictor(state)
    parts = []
    for batch in run.data.eval("train"):
        outputs = predict(batch)
        parts.append(np.asarray(outputs["features"])[np.asarray(outputs["mask"])])
    features = np.concatenate(parts)
    names = [str(path) for path in getattr(run.data.sources["train"], "paths", [])]
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        np.savez(out, features=features, names=np.array(names))
    else:
        from safetensors.numpy import save_file

        save_file({"features": features}, out, metadata={"names": json.dumps(names)})
    return out
