"""Metrics of predicted numbers: R2, mean absolute error, root mean squared error, and Spearman's
rank correlation.
"""

from collections.abc import Sequence

import numpy as np

from mae_jax.evals.agreement import by_name, mean, ratio
from mae_jax.evals.features import Evaluator
from mae_jax.evals.measured import Measure, measuring
from mae_jax.evals.ranking import Ranks, correlation
from mae_jax.types import Metric

METRICS = {
    "r2": Metric("", 3),
    "mae": Metric("", 4, lower_is_better=True),
    "rmse": Metric("", 4, lower_is_better=True, table="further"),
    "spearman": Metric("", 3),
}


def make(
    *, split: str = "test", limit: int | None = None, bootstrap: int = 0, seed: int = 0
) -> Evaluator:
    """Evaluates 'r2', the share of the variance that is explained, at most 1; 'mae' and 'rmse' in
    the units of the field 'value'; 'spearman' in [-1, 1]. Of several values each is a mean over
    them, and there are 'r2/NAME', ...

    Args:
        split, limit, bootstrap, seed: see `mae_jax.evals.measured.measuring`.
    """
    parts = {f"{name}/*": metric._replace(table="") for name, metric in METRICS.items()}
    return measuring(
        "regression",
        measure_of,
        METRICS | parts,
        output="prediction",
        field="value",
        advice="it is for tasks with objective='regression'",
        split=split,
        limit=limit,
        bootstrap=bootstrap,
        seed=seed,
    )


def measure_of(predictions: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Measure:
    """The measure of predictions [N, V] and values [N] or [N, V]."""
    predicted = predictions.astype(np.float64).T  # [V, N]
    true = labels.astype(np.float64).reshape(predictions.shape).T
    ranks = [(Ranks(a), Ranks(b)) for a, b in zip(true, predicted, strict=True)]

    def measure(weights: np.ndarray) -> dict[str, float]:
        total = weights.sum()
        error = predicted - true
        center = np.sum(weights * true, axis=1, keepdims=True) / max(total, 1e-300)
        squared = np.sum(weights * np.square(error), axis=1)
        spread = np.sum(weights * np.square(true - center), axis=1)
        spread *= np.ptp(true[:, weights > 0], axis=1) > 0  # rounding of equal values is no spread
        each = {
            "r2": 1 - ratio(squared, spread),
            "mae": ratio(np.sum(weights * np.abs(error), axis=1), np.full(len(true), total)),
            "rmse": np.sqrt(ratio(squared, np.full(len(true), total))),
            "spearman": [correlation(a(weights), b(weights), weights) for a, b in ranks],
        }
        means = {name: mean(values) for name, values in each.items()}
        if len(true) == 1:
            return means
        return means | by_name(each, names)

    return measure
