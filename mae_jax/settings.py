"""Checks of a config that need no data and no devices."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mae_jax import standardize
from mae_jax.config import AUTO
from mae_jax.engine import compiler
from mae_jax.engine import mesh as meshes
from mae_jax.engine.checkpoint import Checkpoints, check_checkpoints
from mae_jax.engine.optim import check_schedule, make_optimizer
from mae_jax.engine.profile import Profile
from mae_jax.evals.features import Evaluator
from mae_jax.figures.figure import Figure
from mae_jax.methods import make_method
from mae_jax.spec import bind_section, build_all, call_section, parse
from mae_jax.types import Method, UserError
from mae_jax.weights.init_from import make_init_from
from mae_jax.writers.writer import Writer

LARGEST = 2**31 - 1
"""Largest integer for the shape of an array."""


class EvalPlan(NamedTuple):
    """When to evaluate, and how."""

    every: int
    """Steps between two evaluations; 0: only at the end."""
    text: str
    """The spec string of the evaluators."""
    evaluators: list[Evaluator]
    figures: list[Figure]
    """Figures to draw; with `AUTO`, some may not apply to the method."""
    baselines: bool
    """Whether the evaluation at the end includes the baselines."""


class LogPlan(NamedTuple):
    """How often to log, and where to."""

    every: int
    """Steps between two lines of training metrics."""
    writers: dict[str, Writer]
    """The writers, by name."""


def check(config: ConfigDict) -> None:
    """Checks everything in a config that can be checked without data and devices.

    Raises:
        UserError: a value that cannot work, in one line.
    """
    for name in ("accumulate", "max_skipped"):
        if config[name] < 1:
            raise UserError(f"config.{name}={config[name]} must be at least 1")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"config.seed={config.seed} must be in [0, 2**32)")
    meshes.check_count(config.data.batch_size)
    call_section(make_log_plan, config.log, "log")
    bind_section(Checkpoints, config.checkpoint, "checkpoint", folder="")
    check_checkpoints(**config.checkpoint)
    plan = call_section(make_eval_plan, config.evals, "evals")
    _check_splits(plan.evaluators, config.data)
    batch_size = config.data.batch_size
    call_section(check_schedule, config.schedule, "schedule", batch_size=batch_size)
    if "profile" in config:  # older workdirs have none
        Profile(steps=config.profile, total=sys.maxsize)
    if "compiler" in config:
        call_section(compiler.check, config.compiler, "compiler")
    _check_method(config)


def make_log_plan(*, every: int, writers: str = "tensorboard") -> LogPlan:
    """Builds the writers of the section `log`; none is started.

    Args:
        every: steps between two lines of training metrics.
        writers: spec of the writers, e.g. 'tensorboard|wandb(project=cells)'; '': none.
    """
    if every < 1:
        raise UserError(f"config.log.every={every} must be at least 1")
    names, made = [call.name for call in parse(writers)], build_all(writers, "writers", Writer)
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"config.log.writers={writers}: {name} is there twice: drop one")
    return LogPlan(every, dict(zip(names, made, strict=True)))


def _check_splits(evaluators: Sequence[Evaluator], data: Mapping[str, Any]) -> None:
    """Raises UserError if an evaluator reads a split that the config does not have."""
    missing = {} if data.get("test") else {"test": "test names no source"}
    missing |= {} if data.get("held_out") else {"val": "held_out is 0"}
    for evaluator in evaluators:
        for split in evaluator.needs:
            if split in missing:
                why = f"there is no {split!r} split: config.data.{missing[split]}"
                raise UserError(f"{evaluator.name}: {why}")


def _check_method(config: ConfigDict) -> None:
    """Builds the method and its optimizer for a run of one step, to check their arguments."""
    args = dict(config.method.args)
    _check_sizes(args)
    standardize.check(args)
    args |= {name: (0.5,) for name in ("mean", "std") if args.get(name) == AUTO}
    method = call_section(make_method, {**config.method, "args": args}, "method")
    call_section(
        make_optimizer,
        config.optimizer,
        "optimizer",
        schedule=lambda step: 0.0,
        rules=method.rules(),
    )
    make_init_from(config.init_from, config=config.method, method=method, image=None)
    figures = config.evals.figures if "figures" in config.evals else AUTO
    if figures != AUTO:
        for figure in make_figures(figures):
            if reason := figure.check(method):
                raise UserError(f"config.evals.figures: {figure.name}: {reason}")


def _check_sizes(args: Mapping[str, Any]) -> None:
    """Raises UserError if an integer is too large for the shape of an array."""
    sizes = [(f"config.method.args.{name}", value) for name, value in args.items()]
    if "encoder" in args:
        for _, given, named in parse(args["encoder"]):
            numbers = [*given, *named.values()]
            sizes += [("config.method.args.encoder", value) for value in numbers]
    for name, value in sizes:
        for number in value if isinstance(value, tuple) else (value,):
            integer = isinstance(number, int) or name.endswith(".encoder")
            if integer and isinstance(number, (int, float)) and not abs(number) <= LARGEST:
                raise UserError(f"{name}: {number} may be at most {LARGEST}")


def make_eval_plan(
    *, every: int, run: str, figures: str = AUTO, baselines: bool = True
) -> EvalPlan:
    """Builds the evaluators and figures of the section `evals`.

    Args:
        every: steps between two evaluations; 0: only at the end.
        run: spec of the evaluators, e.g. 'knn(k=20)|logistic'.
        figures: spec of the figures, e.g. 'curves|reconstructions(count=16)'; 'auto': these two,
            the second only if the method has pictures.
        baselines: whether the evaluation at the end includes raw pixels and the random encoder.
    """
    if every < 0:
        raise UserError(f"config.evals.every={every} must be 0 (only at the end) or more")
    return EvalPlan(every, run, make_evaluators(run), make_figures(figures), baselines)


def make_figures(text: str) -> list[Figure]:
    """Builds the figures of a spec string."""
    if text == AUTO:
        text = "curves|reconstructions"
    figures = build_all(text, "figures", Figure)
    files = [file for figure in figures for file in figure.files]
    for file in files:
        if files.count(file) > 1:
            raise UserError(f"config.evals.figures={text}: two figures write {file}: drop one")
    return figures


def make_evaluators(text: str, method: Method | None = None) -> list[Evaluator]:
    """Builds the evaluators of a spec string, for a method; none if it is empty."""
    evaluators, owners = build_all(text, "evals", Evaluator), {}
    if method:
        evaluators = [e.for_method(method) if e.for_method else e for e in evaluators]
    for evaluator in evaluators:
        for metric in evaluator.metrics:
            owner = owners.setdefault(metric, evaluator)
            if owner is evaluator:
                continue
            why = f"{owner.name} and {evaluator.name} both have a metric {metric}"
            if owner.name == evaluator.name:
                why = f"{owner.name} is there twice, and its metrics would overwrite each other"
            raise UserError(f"{text}: {why}: run one of them with mae-jax evaluate --evals")
    return evaluators
