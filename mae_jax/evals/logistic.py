"""Multinomial logistic regression on frozen, standardised features, solved to convergence on the
device with L-BFGS: a linear probe without a learning rate to choose.

The objective is scikit-learn's, divided by C and the number of examples: mean cross-entropy +
l2 / 2 * |W|^2, the intercept free; C = 1 / (l2 * N).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mae_jax.evals.features import EvalData, Predict, extract
from mae_jax.types import UserError


class Solution(NamedTuple):
    """A fitted classifier: logits = x @ weights + bias."""

    weights: jax.Array
    """[D, classes]."""
    bias: jax.Array
    """[classes]."""


def make(*, l2: Sequence[float] = (1e-3, 1e-2, 1e-1, 1.0), limit: int | None = None):
    """An evaluator: run(predict, data) -> {'logistic': accuracy in [0, 1] on the test split}.

    Args:
        l2: penalties to choose from: the one that is best on a fifth of the training examples,
            fitted on the others, is then fitted on all of them. One alone is simply used.
        limit: use this many training examples only.
    """
    penalties = (l2,) if isinstance(l2, (int, float)) else tuple(l2)
    if not penalties or min(penalties) <= 0:
        raise UserError(f"logistic(l2={l2}): penalties must be positive")

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        train = extract(predict, data, "train", limit)
        test = extract(predict, data, "test")
        mean, std = train.features.mean(axis=0), train.features.std(axis=0) + 1e-6
        features = (train.features - mean) / std
        solution = fit(features, train.labels, l2=choose(features, train.labels, penalties))
        return {"logistic": accuracy(solution, (test.features - mean) / std, test.labels)}

    return run


def choose(features: np.ndarray, labels: np.ndarray, penalties: Sequence[float]) -> float:
    """The penalty that classifies a held-out fifth of the examples best."""
    if len(penalties) == 1:
        return penalties[0]
    held_out = np.random.default_rng(0).random(len(labels)) < 0.2
    scores = [
        accuracy(
            fit(features[~held_out], labels[~held_out], l2=l2), features[held_out], labels[held_out]
        )
        for l2 in penalties
    ]
    return penalties[int(np.argmax(scores))]


def accuracy(solution: Solution, features: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples [N, D] whose largest logit is that of their label."""
    logits = features @ np.asarray(solution.weights) + np.asarray(solution.bias)
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    l2: float,
    max_steps: int = 1000,
    tolerance: float = 1e-5,
) -> Solution:
    """Minimises the objective above.

    Args:
        features: [N, D]. labels: [N] int, from 0.
        l2: strength of the penalty.
        max_steps: of L-BFGS.
        tolerance: on the largest entry of the gradient.
    """
    classes = int(np.max(labels)) + 1
    return _solve(
        jnp.asarray(features, jnp.float32),
        jnp.asarray(labels),
        classes=classes,
        l2=l2,
        max_steps=max_steps,
        tolerance=tolerance,
    )


@functools.partial(jax.jit, static_argnames=("classes", "max_steps"))
def _solve(features, labels, *, classes: int, l2: float, max_steps: int, tolerance: float):
    # The Hessian is at most (features' features / N / 2 + l2) in each class (Boehning 1992): in
    # coordinates whitened by that bound, L-BFGS needs tens of steps where it would need thousands.
    gram = features.T @ features / (2 * len(features))
    ridge = jnp.maximum(l2, 1e-5 * jnp.trace(gram) / len(gram))
    factor = jnp.linalg.cholesky(gram + ridge * jnp.eye(len(gram))).T

    def unwhiten(z: Solution) -> Solution:
        return Solution(jax.scipy.linalg.solve_triangular(factor, z.weights), z.bias)

    def objective(z: Solution):
        solution = unwhiten(z)
        logits = jnp.matmul(features, solution.weights, precision="highest") + solution.bias
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return cross_entropy + l2 / 2 * jnp.sum(solution.weights**2)

    tx = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry):
        z, state, _ = carry
        value, grad = value_and_grad(z, state=state)
        updates, state = tx.update(grad, state, z, value=value, grad=grad, value_fn=objective)
        z = optax.apply_updates(z, updates)
        return z, state, optax.tree.norm(optax.tree.get(state, "grad"), ord=jnp.inf)

    def unfinished(carry):
        _, state, largest = carry
        return (optax.tree.get(state, "count") < max_steps) & (largest > tolerance)

    zero = Solution(jnp.zeros((features.shape[1], classes)), jnp.zeros(classes))
    z, _, _ = jax.lax.while_loop(unfinished, step, (zero, tx.init(zero), jnp.inf))
    return unwhiten(z)
