"""Metrics of ordered classes: how far predictions are from the labels, in classes."""

from collections.abc import Sequence

import numpy as np

from mae_jax.evals.agreement import confusion, distances, quadratic_kappa, ratio
from mae_jax.evals.classify import ONE_CLASSIFIER
from mae_jax.evals.features import Evaluator
from mae_jax.evals.measured import Measure, measuring
from mae_jax.types import Metric


def make(
    *, split: str = "test", limit: int | None = None, bootstrap: int = 0, seed: int = 0
) -> Evaluator:
    """Evaluates 'kappa', Cohen's kappa with quadratic weights, at most 1; 'class_mae', the mean
    distance of prediction and label in classes; and 'accuracy' in [0, 1]. The prediction is the
    most probable class.

    Args:
        split, limit, bootstrap, seed: see `mae_jax.evals.measured.measuring`.
    """
    return measuring(
        "ordered",
        measure_of,
        {
            "kappa": Metric("", 3),
            "class_mae": Metric("classes", 3, lower_is_better=True),
            "accuracy": Metric(),
        },
        output="logits",
        field="label",
        advice=ONE_CLASSIFIER,
        split=split,
        limit=limit,
        bootstrap=bootstrap,
        seed=seed,
    )


def measure_of(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Measure:
    """The measure of logits [N, K] and classes [N]."""
    classes, predicted = logits.shape[1], logits.argmax(axis=1)

    def measure(weights: np.ndarray) -> dict[str, float]:
        matrix = confusion(labels, predicted, weights, classes)
        total = matrix.sum()
        return {
            "kappa": quadratic_kappa(matrix),
            "class_mae": float(ratio(np.sum(distances(classes) * matrix), total)),
            "accuracy": float(ratio(np.trace(matrix), total)),
        }

    return measure
