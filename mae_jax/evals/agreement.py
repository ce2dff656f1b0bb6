"""Metrics of predicted against true classes, from their confusion matrix: recalls, F1, Cohen's
kappa. By scikit-learn's definitions, in float64; NaN where a metric is undefined.
"""

from collections.abc import Mapping, Sequence

import numpy as np


def confusion(
    labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray, classes: int
) -> np.ndarray:
    """[classes, classes] float64: weight of the examples of each class (row) with each prediction
    (column).

    Args:
        labels, predicted: [N] int, in [0, classes).
        weights: [N] of the examples.
        classes: their number.
    """
    cells = np.bincount(labels * classes + predicted, weights, classes**2)
    return cells.reshape(classes, classes)


def recalls(matrix: np.ndarray) -> np.ndarray:
    """[classes]: share of each class that is predicted; NaN for a class without an example."""
    return ratio(np.diag(matrix), matrix.sum(axis=1))


def f1_scores(matrix: np.ndarray) -> np.ndarray:
    """[classes]: harmonic mean of precision and recall; NaN for a class that is neither a label nor
    a prediction.
    """
    return ratio(2 * np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1))


def quadratic_kappa(matrix: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights: 1 - observed / expected squared distance of labels and
    predictions, where the expected one is that of independent ones with the same counts. NaN where
    all examples have one class and one prediction.
    """
    squared = np.square(distances(len(matrix)))
    expected = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / max(matrix.sum(), 1e-300)
    return float(1 - ratio(np.sum(squared * matrix), np.sum(squared * expected)))


def distances(classes: int) -> np.ndarray:
    """[classes, classes] float64: |row - column|."""
    numbers = np.arange(classes, dtype=np.float64)
    return np.abs(numbers[:, None] - numbers)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where `below` is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


def mean(values: np.ndarray) -> float:
    """Mean of the values that are defined; NaN if none is."""
    values = np.asarray(values)[~np.isnan(values)]
    return float(values.mean()) if len(values) else np.nan


def by_name(each: Mapping[str, Sequence[float]], names: Sequence[str]) -> dict[str, float]:
    """'METRIC/NAME' -> value, from the values of each metric in the order of the names."""
    return {
        f"{metric}/{name}": float(value)
        for metric, values in each.items()
        for name, value in zip(names, values, strict=True)
    }
