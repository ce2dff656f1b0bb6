"""Evaluators of predictions against labels, with bootstrap confidence intervals (Efron 1979).

A measure maps weights of the examples to metrics. All weights are 1 for the metrics themselves. The
bootstrap draws groups of examples with replacement, and a weight is the number of times that the
group of an example was drawn. An example without a 'group' in the data is a group of its own.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mae_jax.data import fields
from mae_jax.evals.classify import check_labels
from mae_jax.evals.features import EvalData, Evaluator, Measure, Predict, check_limit, read_split
from mae_jax.types import Metric, UserError

logger = logging.getLogger(__name__)

LEVEL = 0.95
"""Share of the bootstrap distribution inside of a confidence interval."""


def measuring(
    name: str,
    measure: Callable[[np.ndarray, np.ndarray, Sequence[str]], Measure],
    metrics: Mapping[str, Metric],
    *,
    output: str,
    field: str,
    advice: str,
    split: str,
    limit: int | None,
    bootstrap: int,
    seed: int,
) -> Evaluator:
    """An evaluator of one output against one field of labels.

    Args:
        name: of the evaluator.
        measure: (predictions [N, ...], labels [N, ...], names of the classes) -> its `Measure`.
        metrics: declarations. With a bootstrap there are also METRIC_low and METRIC_high of each
            whose name has no slash.
        output: output of the model.
        field: of the labels.
        advice: the way out where the model lacks the output.
        split: of the data.
        limit: maximum number of examples; None: all.
        bootstrap: number of draws for 95% confidence intervals METRIC_low and METRIC_high, e.g.
            1000; examples of one 'group' are drawn together. 0: none.
        seed: of the draws.

    Raises:
        UserError: a bootstrap or a limit that is negative; when called: labels that do not fit the
            model, predictions that are not numbers, or no examples.
    """
    check_limit(name, limit)
    if bootstrap < 0 or seed < 0:
        raise UserError(f"{name}: bootstrap={bootstrap} and seed={seed} must be at least 0")

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        rows = read(predict, data, split, limit, output=output, field=field)
        if np.isnan(rows.predictions).any():
            raise UserError(f"{name}: the model predicts NaN: its training has diverged")
        weighted = measure(rows.predictions, rows.labels, rows.names)
        return measured(name, weighted, rows.groups, bootstrap=bootstrap, seed=seed)

    ends = {f"{k}_{end}": m for k, m in metrics.items() if "/" not in k for end in ("low", "high")}
    bounds = {k: m._replace(table="further") for k, m in ends.items() if bootstrap}
    return Evaluator(
        name=name,
        run=run,
        outputs=(output,),
        needs={split: (field,)},
        metrics={**metrics, **bounds},
        advice=advice,
        measure=measure,
    )


class Rows(NamedTuple):
    """The predictions for N examples and their labels."""

    predictions: np.ndarray
    """[N, ..., K]."""
    labels: np.ndarray
    """[N] or [N, K]."""
    names: Sequence[str]
    """Names of the K classes or values."""
    groups: np.ndarray
    """[N] int, equal for examples of one group."""


def read(
    predict: Predict, data: EvalData, split: str, limit: int | None, *, output: str, field: str
) -> Rows:
    """Reads predictions and labels of a split.

    Raises:
        UserError: there is no example, or labels do not fit the predictions.
    """
    outputs = read_split(predict, data, split, limit)
    predictions, labels = outputs[output], outputs[field]
    if not len(labels):
        raise UserError(f"the {split} split has no example that can be read")
    count, holds = predictions.shape[-1], fields.of(field).holds
    check_labels(labels, count, split, field=field, holds=holds)
    if holds != "classes" and labels.size != len(labels) * count:
        raise UserError(
            f"{field!r} has the shape {list(labels.shape[1:])} for each example of the {split} "
            f"split, and the model predicts {count}: use data like those of the training set"
        )
    names = data.source(split).names.get(field) or [str(number) for number in range(count)]
    return Rows(predictions, labels, names, outputs.get("group", np.arange(len(labels))))


def measured(
    name: str, measure: Measure, groups: np.ndarray, *, bootstrap: int, seed: int
) -> dict[str, float]:
    """The defined metrics of a measure, and their intervals METRIC_low, METRIC_high: quantiles of
    the metrics over the draws in which they are defined.

    Args:
        name: of the evaluator, for the warning about metrics that are undefined.
        measure: see `Measure`.
        groups: [N] int, equal for examples that are drawn together.
        bootstrap, seed: number of draws, and their seed.
    """
    values = measure(np.ones(len(groups)))
    undefined = [metric for metric, value in values.items() if np.isnan(value)]
    if undefined and jax.process_index() == 0:
        logger.warning(
            "%s: undefined on these labels and left out: %s (a class needs examples with and "
            "without it, and values must differ)",
            *(name, ", ".join(undefined)),
        )
    values = {metric: value for metric, value in values.items() if metric not in undefined}
    main = [metric for metric in values if "/" not in metric]
    parts = {metric: values.pop(metric) for metric in [*values] if metric not in main}
    if bootstrap and main:
        numbers, groups = np.unique(groups, return_inverse=True)
        rng, draws = np.random.default_rng(seed), []
        for _ in range(bootstrap):
            drawn = np.bincount(rng.integers(0, len(numbers), len(numbers)), None, len(numbers))
            found = measure(drawn[groups].astype(np.float64))
            draws.append([found[metric] for metric in main])
        tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
        for metric, column in zip(main, np.transpose(draws), strict=True):
            defined = column[~np.isnan(column)]
            if len(defined):
                low, high = np.quantile(defined, tails)
                values |= {f"{metric}_low": float(low), f"{metric}_high": float(high)}
    return values | parts
