"""How well scores rank examples of one class before the others: area under the ROC curve, average
precision; and ranks of values. By scikit-learn's definitions, in float64, with ties and weights.
"""

import numpy as np


class Ranking:
    """Examples sorted by a score once, for metrics under many weights.

    Args:
        positive: [N] bool, whether an example is of the class.
        scores: [N] float, a larger one for the class.
    """

    def __init__(self, positive: np.ndarray, scores: np.ndarray):
        self._order = np.argsort(-scores, kind="stable")
        ranked, count = scores[self._order], len(scores)
        self._positive = positive[self._order]
        last = np.append(ranked[1:] != ranked[:-1], True)[:count]  # of equal scores
        self._ends = np.flatnonzero(last)

    def auroc(self, weights: np.ndarray) -> float:
        """Area under the ROC curve: the share of pairs of a positive and a negative example in the
        right order, where a tie counts one half; NaN without either kind.

        Args:
            weights: [N] of the examples, at least 0.
        """
        true, false = self._counts(weights)
        if not len(true) or not true[-1] or not false[-1]:
            return np.nan
        before = np.append(0, true[:-1])
        area = np.sum(np.diff(false, prepend=0) * (true + before) / 2)
        return float(area / (true[-1] * false[-1]))

    def average_precision(self, weights: np.ndarray) -> float:
        """Mean precision over the positive examples, at the score of each; NaN without any.

        Args:
            weights: [N] of the examples, at least 0.
        """
        true, false = self._counts(weights)
        if not len(true) or not true[-1]:
            return np.nan
        precision = true / np.maximum(true + false, np.finfo(float).tiny)
        return float(np.sum(np.diff(true, prepend=0) * precision) / true[-1])

    def _counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights [thresholds] of positive and negative examples whose score is at least as large,
        for every distinct score from the largest on.
        """
        weights = weights[self._order]
        true = np.cumsum(weights * self._positive)[self._ends]
        return true, np.cumsum(weights * ~self._positive)[self._ends]


class Ranks:
    """Ranks of values [N] under weights that count repetitions of examples."""

    def __init__(self, values: np.ndarray):
        _, self._groups = np.unique(values, return_inverse=True)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Ranks [N] from 1, the mean rank for equal values."""
        equal = np.bincount(self._groups, weights)
        return (np.cumsum(equal) - (equal - 1) / 2)[self._groups]


def correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """Pearson's correlation of values [N] under weights [N]; NaN where one of them is constant."""
    total = weights.sum()
    if not total:
        return np.nan
    a, b = (x - np.sum(weights * x) / total for x in (a, b))
    variances = np.sum(weights * a * a) * np.sum(weights * b * b)
    return float(np.sum(weights * a * b) / np.sqrt(variances)) if variances > 0 else np.nan
