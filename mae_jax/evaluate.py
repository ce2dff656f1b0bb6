"""Evaluation of a run: evaluators on the outputs of the trained model and of its baselines (raw
pixels, the encoder before training), and the figures.
"""

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from mae_jax.engine.log import Log, console, read
from mae_jax.engine.step import stream_key
from mae_jax.evals.features import Evaluator, read_split, shared
from mae_jax.figures.figure import Figure, FigureContext
from mae_jax.learner import Predictor
from mae_jax.metrics import EVAL
from mae_jax.progress import Progress
from mae_jax.run import Run
from mae_jax.tables import results_table
from mae_jax.types import Metric, TrainState, UserError
from mae_jax.workdir import read_results, set_aside, write
from mae_jax.writers.delivery import Writers

logger = logging.getLogger(__name__)

Results = dict[str, dict[str, float]]
"""Representation -> metric -> value."""


def run_evaluators(
    data, predictor: Predictor, evaluators: Sequence[Evaluator], progress: Progress | None = None
) -> dict[str, float]:
    """Runs evaluators and returns their metrics.

    Args:
        data: the data that the evaluators read.
        predictor: compiles functions from batches to outputs, see `Learner.predictor`.
        progress: reads the data in place of `data` and reports the progress.
    """
    metrics: dict[str, float] = {}
    # Evaluators without `reduce` share one function, and so one pass over each split.
    sharing = [evaluator for evaluator in evaluators if not evaluator.reduce]
    outputs = dict.fromkeys(output for evaluator in sharing for output in evaluator.outputs)
    predict = shared(predictor(tuple(outputs), None), sharing)
    for evaluator in evaluators:
        if progress:
            progress.begin(evaluator.name)
        reduced = evaluator.reduce and predictor(evaluator.outputs, evaluator.reduce)
        metrics |= _checked(evaluator, evaluator(reduced or predict, progress or data))
    read_split.cache_clear()
    return metrics


def _checked(evaluator: Evaluator, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of an evaluator as Python floats.

    Raises:
        UserError: a metric that the evaluator does not declare, or that is not a number.
    """
    numbers = {}
    for name, value in metrics.items():
        if _declared(evaluator, name) is None or np.ndim(value):
            known = ", ".join(evaluator.metrics)
            raise UserError(
                f"{evaluator.name}: the metric {name}={value!r} must be a number, and declared by "
                f"the evaluator, which declares {known}"
            )
        numbers[name] = float(value)
    return numbers


def _declared(evaluator: Evaluator, name: str) -> Metric | None:
    """How a metric is shown; None: the evaluator has none of this name."""
    family = f"{name.partition('/')[0]}/*"
    return evaluator.metrics.get(name, evaluator.metrics.get(family) if "/" in name else None)


def evaluate(
    run: Run,
    state: TrainState,
    evaluators: Sequence[Evaluator],
    poll: Callable[[], None] = lambda: None,
    baselines: bool = True,
) -> Results:
    """Runs the evaluators on the trained model, and those with `baselines` on the baselines too.

    Args:
        poll: called before each representation is evaluated.
        baselines: whether to evaluate the baselines.
    """
    predictors, results = run.representations(state), {}
    if not baselines:
        predictors = {run.name: predictors[run.name]}
    with Progress(run.data, len(predictors)) as progress:
        for name, predictor in predictors.items():
            poll()
            progress.turn(name)
            chosen = [e for e in evaluators if name == run.name or _applies(e, name)]
            if chosen:
                results[name] = run_evaluators(run.data, predictor, chosen, progress)
    return results


def finish(
    run: Run, state: TrainState, workdir: Path, poll: Callable[[], None], writers: Writers
) -> None:
    """Evaluates the trained model and its baselines, writes the results and draws the figures.

    Args:
        poll: see `evaluate`.
        writers: receive the results.
    """
    step, evaluators = int(state.step), run.evals.evaluators
    results = evaluate(run, state, evaluators, poll, run.evals.baselines)
    metrics = metrics_of(evaluators, results)
    if evaluators and jax.process_index() == 0:
        path = workdir / "results.json"
        write_results(path, step, results, evaluators, ended_by=run.evals.text)
        writers.start(step, lambda: read(workdir / "metrics.jsonl"))
        writers.results(step, results, metrics)
    paths = figures(run, state, workdir)
    if jax.process_index() == 0:
        if evaluators:
            title = f"after {step} steps, held-out images"
            console.print(results_table(results, metrics, title))
        for path in paths:
            console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def _applies(evaluator: Evaluator, baseline: str) -> bool:
    """Whether an evaluator runs on a baseline; raw pixels provide the output 'features' only."""
    pixels_do = baseline != "raw pixels" or evaluator.outputs == ("features",)
    return evaluator.baselines and pixels_do


def during_training(run: Run, state: TrainState, log: Log) -> None:
    """Logs the metrics of the run's evaluators, and its pictures."""
    predictor = functools.partial(run.predictor, state)
    metrics = run_evaluators(run.data, predictor, run.evals.evaluators)
    if metrics:
        log.write(int(state.step), {f"{EVAL}{name}": value for name, value in metrics.items()})
    log_pictures(run, state, log)


def log_pictures(run: Run, state: TrainState, log: Log) -> None:
    """Logs the pictures of the figures that have any."""
    for figure in drawable(run):
        if figure.log:
            log.picture(
                int(state.step), figure.name, *figure.log(context(run, state, log.path.parent))
            )


def metrics_of(evaluators: Sequence[Evaluator], results: Results) -> dict[str, Metric]:
    """How the metrics of evaluators are shown."""
    names = dict.fromkeys(name for values in results.values() for name in values)
    declared = {name: m for e in evaluators for name in names if (m := _declared(e, name))}
    return {name: metric for e in evaluators for name, metric in e.metrics.items()} | declared


def write_results(
    path: Path,
    step: int,
    results: Results,
    evaluators: Sequence[Evaluator],
    *,
    ended_by: str | None = None,
) -> Path:
    """Writes `results.json`. 'results' is merged with the file's results of the same step. 'final'
    holds the results at the end of training and 'evaluators' their spec; later evaluations keep
    both. 'metrics' declares how each metric is shown.

    Args:
        ended_by: the spec of the evaluators, if these are the final results.
    """
    old = {"step": None}
    if path.exists():
        try:
            old = read_results(path)
        except UserError as error:
            logger.warning("%s; it is set aside as %s", error, set_aside(path).name)
    ended = results if ended_by is not None else None
    metrics = metrics_of(evaluators, results)
    if old["step"] == step:
        earlier = [name for name in old["results"] if name not in results]
        names = [*earlier, *results]  # the last one is the run's own
        results = {name: old["results"].get(name, {}) | results.get(name, {}) for name in names}
        metrics = old["metrics"] | metrics
        if ended is None:
            ended, ended_by = old["final"], old.get("evaluators")
    shown = {name for values in results.values() for name in values}
    content = {
        "step": step,
        "results": results,
        "final": ended,
        "evaluators": ended_by,
        "metrics": {name: m._asdict() for name, m in metrics.items() if name in shown},
    }
    write(path, json.dumps(content, indent=2))
    return path


def is_evaluated(run: Run, workdir: Path, step: int) -> bool:
    """Whether a workdir has the figures and the evaluators' results for a step."""
    figures = [name for figure in drawable(run) for name in figure.files]
    if not all((workdir / "figures" / name).is_file() for name in figures):
        return False
    if not run.evals.evaluators:
        return True
    path = workdir / "results.json"
    try:
        content = read_results(path) if path.is_file() else {}
    except UserError:  # `write_results` sets it aside
        return False
    ended = content.get("step") == step and content.get("final") is not None
    return ended and content.get("evaluators") == run.evals.text


def drawable(run: Run) -> list[Figure]:
    """The figures of the run that apply to its method."""
    return [figure for figure in run.evals.figures if figure.check(run.method) is None]


def context(run: Run, state: TrainState, workdir: Path) -> FigureContext:
    """The inputs of the figures."""
    path, known = workdir / "results.json", {"results": {}, "metrics": {}}
    with contextlib.suppress(UserError):  # `write_results` sets a damaged file aside
        content = read_results(path) if path.exists() else known
        known = content if content.get("step") == int(state.step) else known
    return FigureContext(
        method=run.method,
        step=int(state.step),
        folder=workdir / "figures",
        lines=read(workdir / "metrics.jsonl"),
        results=known["results"],
        metrics=metrics_of(run.evals.evaluators, known["results"]) | known["metrics"],
        data=run.data,
        split=drawn_split(run),
        predict=functools.partial(run.predictor, state),
        pictures=functools.partial(pictures, run, state),
    )


def drawn_split(run: Run) -> str:
    """The split whose images are drawn: the training set if there is no test set."""
    return "test" if "test" in run.data.sources else "train"


def figures(run: Run, state: TrainState, workdir: Path) -> list[Path]:
    """Draws the figures of a run into `figures/`."""
    (workdir / "figures").mkdir(exist_ok=True)
    inputs = context(run, state, workdir)
    paths = []
    for figure in drawable(run):
        paths += figure.draw(inputs)
        for name in figure.files if jax.process_index() == 0 else ():
            if not (inputs.folder / name).is_file():
                raise UserError(f"the figure {figure.name} declares {name}, but did not write it")
    return paths


def pictures(run: Run, state: TrainState, count: int, seed: int) -> dict[str, np.ndarray]:
    """The method's pictures of the first `count` images, by kind: [count, *space, C] uint8."""
    split = drawn_split(run)
    drawings: dict[str, list[np.ndarray]] = {}
    for number, batch in enumerate(run.data.eval(split, limit=count)):
        key = stream_key(seed, "reconstruct", number)
        drawn, valid = run.draw(state.params, state.extra, run.put(batch), key)
        for name, images in drawn.items():
            drawings.setdefault(name, []).append(np.asarray(images)[np.asarray(valid)])
    return {name: np.concatenate(images) for name, images in drawings.items()}
