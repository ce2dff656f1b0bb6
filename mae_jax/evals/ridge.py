"""Ridge regression of the field 'value' on frozen, standardized features, in closed form: a linear
probe of numbers without a learning rate to choose.

The objective is scikit-learn's, divided by the number N of examples: mean squared error + l2 |W|^2,
with no penalty on the intercept; alpha = l2 N.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict, check_limit, extract
from mae_jax.evals.regression import measure_of
from mae_jax.evals.span import narrowed
from mae_jax.types import Metric, UserError


class Solution(NamedTuple):
    """A fitted regression: values = x @ weights + bias."""

    weights: np.ndarray
    """[D, V]."""
    bias: np.ndarray
    """[V]."""


def make(
    *, l2: float | Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0), limit: int | None = None
) -> Evaluator:
    """An evaluator: run(predict, data) -> {'ridge_r2', 'ridge_spearman'} of the test split, see
    `regression`; means over several values.

    Args:
        l2: penalty, or several to choose from. Each is fitted on four fifths of the training
            examples and its R2 computed on the rest; the best is then fitted on all of them.
        limit: maximum number of training examples; None: all.

    Raises:
        UserError: a penalty that is not positive, or no penalty.
    """
    penalties = (l2,) if isinstance(l2, (int, float)) else tuple(l2)
    check_limit("ridge", limit)
    if not penalties or not all(0 < one < math.inf for one in penalties):
        raise UserError(f"ridge(l2={l2}): penalties must be positive")

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        train = extract(predict, data, "train", limit, field="value")
        test = extract(predict, data, "test", field="value")
        mean, std = train.features.mean(axis=0), train.features.std(axis=0) + 1e-6
        features, others = narrowed((train.features - mean) / std, (test.features - mean) / std)
        solution = fit(features, train.labels, choose(features, train.labels, penalties))
        found = metrics_of(solution, others, test.labels)
        named = {f"ridge_{name}": found[name] for name in ("r2", "spearman")}
        return {name: value for name, value in named.items() if not np.isnan(value)}

    return Evaluator(
        name="ridge",
        run=run,
        outputs=("features",),
        needs={"train": ("value",), "test": ("value",)},
        metrics={"ridge_r2": Metric("", 3), "ridge_spearman": Metric("", 3, table="further")},
        baselines=True,
        limit=limit,
    )


def metrics_of(solution: Solution, features: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Metrics of `regression` for features [N, D] and values [N] or [N, V]."""
    predicted = features @ solution.weights + solution.bias
    names = [str(number) for number in range(predicted.shape[1])]
    return measure_of(predicted, values, names)(np.ones(len(predicted)))


def choose(features: np.ndarray, values: np.ndarray, penalties: Sequence[float]) -> float:
    """The penalty with the largest R2 on a held-out fifth of the examples."""
    if len(penalties) == 1:
        return penalties[0]
    held_out = np.random.default_rng(0).random(len(values)) < 0.2
    scores = [
        metrics_of(
            fit(features[~held_out], values[~held_out], l2), features[held_out], values[held_out]
        )["r2"]
        for l2 in penalties
    ]
    return penalties[int(np.argmax(np.nan_to_num(scores, nan=-np.inf)))]


def fit(features: np.ndarray, values: np.ndarray, l2: float) -> Solution:
    """Minimizes the objective above, in float64.

    Args:
        features: [N, D].
        values: [N] or [N, V].
        l2: strength of the penalty.
    """
    x, y = features.astype(np.float64), values.astype(np.float64).reshape(len(values), -1)
    center, mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - center, y - mean
    gram = x.T @ x / len(x) + l2 * np.eye(x.shape[1])  # [D, D]
    weights = np.linalg.solve(gram, x.T @ y / len(x))  # [D, V]
    return Solution(weights, mean - center @ weights)
