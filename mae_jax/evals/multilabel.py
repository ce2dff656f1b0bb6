"""Metrics of several classes per image, each against its absence: area under the ROC curve, average
precision, F1. Unknown entries, 255, count for nothing.
"""

from collections.abc import Sequence

import numpy as np

from mae_jax.evals.agreement import by_name, mean, ratio
from mae_jax.evals.features import Evaluator
from mae_jax.evals.measured import Measure, measuring
from mae_jax.evals.ranking import Ranking
from mae_jax.types import IGNORE, Metric

METRICS = ("auroc", "average_precision", "f1")


def make(
    *, split: str = "test", limit: int | None = None, bootstrap: int = 0, seed: int = 0
) -> Evaluator:
    """Evaluates 'auroc', 'average_precision' and 'f1', means over the classes, and each of a class,
    'auroc/NAME', ... All are in [0, 1]. F1 is of probabilities of at least one half.

    Args:
        split, limit, bootstrap, seed: see `mae_jax.evals.measured.measuring`.
    """
    parts = [f"{metric}/*" for metric in METRICS]
    return measuring(
        "multilabel",
        measure_of,
        dict.fromkeys(METRICS, Metric()) | dict.fromkeys(parts, Metric(table="")),
        output="multilabel_logits",
        field="labels",
        advice="it is for tasks with objective='multilabel'",
        split=split,
        limit=limit,
        bootstrap=bootstrap,
        seed=seed,
    )


def measure_of(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Measure:
    """The measure of logits [N, K] and labels [N, K]."""
    classes = range(logits.shape[1])
    rows = [np.flatnonzero(labels[:, k] != IGNORE) for k in classes]
    present = [labels[rows[k], k] == 1 for k in classes]
    predicted = [logits[rows[k], k] >= 0 for k in classes]
    rankings = [Ranking(present[k], logits[rows[k], k]) for k in classes]

    def measure(weights: np.ndarray) -> dict[str, float]:
        each: dict[str, list] = {metric: [] for metric in METRICS}
        for k in classes:
            some = weights[rows[k]]
            each["auroc"].append(rankings[k].auroc(some))
            each["average_precision"].append(rankings[k].average_precision(some))
            both = np.sum(some * (present[k] & predicted[k]))
            either = np.sum(some * present[k]) + np.sum(some * predicted[k])
            each["f1"].append(ratio(2 * both, either))
        return {metric: mean(values) for metric, values in each.items()} | by_name(each, names)

    return measure
