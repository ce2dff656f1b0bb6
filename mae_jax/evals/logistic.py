"""Multinomial logistic regression on frozen, standardized features, solved to convergence on the
device with L-BFGS: a linear probe without a learning rate to choose.

The objective is scikit-learn's, divided by C and the number of examples: mean cross-entropy +
l2 / 2 * |W|^2, with no penalty on the intercept; C = 1 / (l2 * N). Of several classes per image,
each is fitted against its absence, which are two classes.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mae_jax.evals import multilabel
from mae_jax.evals.features import (
    LAYERED,
    EvalData,
    Evaluator,
    Predict,
    check_limit,
    extract,
    layered,
)
from mae_jax.evals.span import narrowed
from mae_jax.spec import check_choice
from mae_jax.types import Metric, UserError, layer_output


class Solution(NamedTuple):
    """A fitted classifier: logits = x @ weights + bias."""

    weights: jax.Array
    """[D, classes]."""
    bias: jax.Array
    """[classes]."""


def make(
    *,
    l2: float | Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0),
    field: str = "label",
    limit: int | None = None,
    layer: int | None = None,
    pool: str = "",
) -> Evaluator:
    """An evaluator: run(predict, data) -> {'logistic': accuracy in [0, 1] on the test split}.

    Args:
        l2: penalty, or several to choose from. Each is fitted on four fifths of the training
            examples and scored on the rest; the best one is then fitted on all of them.
        field: 'label' of one class per image, or 'labels' of several, for 'logistic_auroc', the
            mean area under the ROC curve, in place of 'logistic'.
        limit: maximum number of training examples; None: all.
        layer, pool: features of a layer of the encoder, see `types.layer_output`; the metric is
            then 'logistic_layer_2' or 'logistic_layer_2_mean'.

    Raises:
        UserError: a penalty that is not positive, or no penalty.
    """
    penalties = (l2,) if isinstance(l2, (int, float)) else tuple(l2)
    check_limit("logistic", limit)
    check_choice("logistic: field", field, ("label", "labels"))
    name, score, solve = "logistic", accuracy, fit
    if field == "labels":
        name, score, solve = "logistic_auroc", auroc, fit_each
    if not penalties or not all(0 < one < math.inf for one in penalties):
        raise UserError(f"logistic(l2={l2}): penalties must be positive")

    output, (metric,) = layer_output(layer, pool), layered([name], layer, pool).values()

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        train = extract(predict, data, "train", limit, output=output, field=field)
        test = extract(predict, data, "test", output=output, field=field)
        mean, std = train.features.mean(axis=0), train.features.std(axis=0) + 1e-6
        features, others = narrowed((train.features - mean) / std, (test.features - mean) / std)
        solve_ = functools.partial(solve, gram=gram_of(features))  # the same for all penalties
        l2 = choose(features, train.labels, penalties, score, solve_)
        solution = solve_(features, train.labels, l2=l2)
        value = score(solution, others, test.labels)
        return {} if math.isnan(value) else {metric: value}

    return Evaluator(
        name="logistic",
        run=run,
        outputs=(output,),
        needs={"train": (field,), "test": (field,)},
        metrics={metric: Metric()},
        advice=LAYERED if "/" in output else "",
        baselines=True,
        memory=memory,
        limit=limit,
    )


def memory(examples: int, width: int, classes: int) -> int:
    """Bytes on a device: features [N, D], logits [N, classes], the whitening [D, D], and the points
    and gradients [D + 1, classes] in the history of L-BFGS, all float32.
    """
    width = min(width, examples)  # see `narrowed`
    return 4 * (examples * (width + classes) + width**2 + 20 * (width + 1) * classes)


def accuracy(solution: Solution, features: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy of a classifier on features [N, D] with labels [N]."""
    logits = features @ np.asarray(solution.weights) + np.asarray(solution.bias)
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def auroc(solution: Solution, features: np.ndarray, labels: np.ndarray) -> float:
    """Mean area under the ROC curve on features [N, D] with labels [N, K], see `multilabel`."""
    logits = features @ np.asarray(solution.weights) + np.asarray(solution.bias)
    names = [str(number) for number in range(logits.shape[1])]
    return multilabel.measure_of(logits, labels, names)(np.ones(len(logits)))["auroc"]


def fit_each(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    l2: float,
    weights: np.ndarray | None = None,
    gram: jax.Array | None = None,
) -> Solution:
    """Fits each of several classes against its absence.

    Args:
        features: [N, D].
        labels: [N, K] of 0 and 1; other entries are unknown and left out.
        l2, weights, gram: see `fit`.
    """
    columns = []
    for column in labels.T:
        known = column <= 1
        rows = known if weights is None else known & weights
        if not rows.any():
            columns.append((np.zeros(features.shape[1]), 0.0))
            continue
        two = fit(features, np.where(known, column, 0), l2=l2, weights=rows, classes=2, gram=gram)
        columns.append((two.weights[:, 1] - two.weights[:, 0], two.bias[1] - two.bias[0]))
    kernels, biases = zip(*columns, strict=True)
    return Solution(np.stack(kernels, axis=1), np.stack(biases))


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    l2: float,
    weights: np.ndarray | None = None,
    classes: int | None = None,
    max_steps: int = 1000,
    tolerance: float = 1e-6,
    gram: jax.Array | None = None,
) -> Solution:
    """Minimizes the objective above.

    Args:
        features: [N, D].
        labels: [N] int, from 0.
        l2: strength of the penalty.
        weights: [N] weights of the examples in the mean, 0 to leave one out; None: all equal.
        classes: their number; None: up to the largest label.
        max_steps: maximum number of evaluations of the objective.
        tolerance: stop when the predicted decrease of the next step is below this share of the
            objective, or of the decrease since the start if that is smaller.
        gram: `gram_of(features)`, to compute it once for several fits; None: compute it.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    return _solve(
        jnp.asarray(features, jnp.float32),
        jnp.asarray(labels),
        jnp.asarray(weights / np.sum(weights), jnp.float32),
        gram_of(features) if gram is None else gram,
        classes=classes or int(np.max(labels)) + 1,
        l2=float(l2),
        max_steps=max_steps,
        tolerance=tolerance,
    )


def choose(
    features: np.ndarray, labels: np.ndarray, penalties: Sequence[float], score=accuracy, solve=fit
) -> float:
    """The penalty with the best score on a held-out fifth of the examples.

    Args:
        features, labels: see `solve`.
        penalties: to choose from.
        score, solve: `accuracy` and `fit`, or `auroc` and `fit_each`.
    """
    if len(penalties) == 1:
        return penalties[0]
    held_out = np.random.default_rng(0).random(len(labels)) < 0.2
    scores = [
        score(
            solve(features, labels, l2=l2, weights=~held_out), features[held_out], labels[held_out]
        )
        for l2 in penalties
    ]
    return penalties[int(np.argmax(np.nan_to_num(scores, nan=-np.inf)))]


class _Search(NamedTuple):
    """State of the line search: a point, and the step z - length * direction to try next."""

    z: jax.Array
    value: jax.Array
    direction: jax.Array
    slope: jax.Array
    length: jax.Array
    memory: optax.ScaleByLBFGSState
    count: jax.Array


@functools.partial(jax.jit, static_argnames="classes")
def _solve(features, labels, weights, gram, *, classes: int, l2, max_steps, tolerance) -> Solution:
    inverse = _whitening(gram, l2)
    matmul = functools.partial(jnp.matmul, precision="highest")

    def unwhiten(z) -> Solution:
        return Solution(matmul(inverse, z[:-1]), z[-1])

    def objective(z):
        solution = unwhiten(z)
        logits = matmul(features, solution.weights) + solution.bias
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(weights * cross_entropy) + l2 / 2 * jnp.sum(solution.weights**2)

    lbfgs = optax.scale_by_lbfgs(memory_size=10)

    def step(last: _Search) -> _Search:
        z = last.z - last.length * last.direction
        value, gradient = jax.value_and_grad(objective)(z)
        direction, memory = lbfgs.update(gradient, last.memory, z)
        slope = jnp.vdot(gradient, direction)
        accepted = _Search(z, value, direction, slope, 1.0, memory, last.count)
        # Armijo's condition, with a tolerance for rounding in float32.
        enough = value <= (1 + 1e-6) * last.value - 1e-4 * last.length * last.slope
        shorter = last._replace(length=last.length / 2)
        best = jax.tree.map(functools.partial(jnp.where, enough), accepted, shorter)
        return best._replace(count=last.count + 1)

    def unfinished(last: _Search):
        gained = jnp.clip(jnp.log(classes) - last.value, 0, last.value)
        worth = last.slope > tolerance * gained
        return worth & (last.length > 1e-3) & (last.count < max_steps)

    # The first step has direction 0 and starts from a huge value, so it only evaluates the start.
    # Tracing the objective once, instead of before and inside the loop, compiles faster.
    zero, far = jnp.zeros((features.shape[1] + 1, classes)), jnp.float32(1e30)
    start = _Search(zero, far, zero, far, 1.0, lbfgs.init(zero), 0)
    return unwhiten(jax.lax.while_loop(unfinished, step, start).z)


@jax.jit
def gram_of(features) -> jax.Array:
    """X^T X / (2 N) [D, D] of features [N, D], in float32."""
    features = jnp.asarray(features, jnp.float32)
    return jnp.matmul(features.T, features, precision="highest") / (2 * len(features))


def _whitening(gram, l2):
    """Matrix [D, D] from whitened weights to weights. The Hessian of each class is bounded by
    X^T X / (2 N) + l2 (Boehning 1992); whitened by that bound, L-BFGS needs tens of steps instead
    of thousands.
    """
    ridge = jnp.maximum(l2, 1e-5 * jnp.trace(gram) / len(gram))
    identity = jnp.eye(len(gram))
    factor = jnp.linalg.cholesky(gram + ridge * identity).T
    return jax.scipy.linalg.solve_triangular(factor, identity)
