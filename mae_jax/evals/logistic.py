"""Multinomial logistic regression on frozen, standardised features, solved to convergence on the
device with L-BFGS: a linear probe without a learning rate to choose.

The objective is scikit-learn's, divided by C and the number of examples: mean cross-entropy +
l2 / 2 * |W|^2, the intercept free; C = 1 / (l2 * N).
"""

import functools
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


def make(*, l2: float = 1e-3, limit: int | None = None):
    """An evaluator: run(predict, data) -> {'logistic': accuracy in [0, 1] on the test split}.

    Args:
        l2: strength of the penalty, see above.
        limit: use this many training examples only.
    """
    if l2 <= 0:
        raise UserError(f"logistic(l2={l2}): the penalty must be positive")

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        train = extract(predict, data, "train", limit)
        test = extract(predict, data, "test")
        mean, std = train.features.mean(axis=0), train.features.std(axis=0) + 1e-6
        solution = fit((train.features - mean) / std, train.labels, l2=l2)
        logits = (test.features - mean) / std @ np.asarray(solution.weights) + solution.bias
        return {"logistic": float(np.mean(np.argmax(logits, axis=1) == test.labels))}

    return run


def fit(
    features: np.ndarray, labels: np.ndarray, *, l2: float, max_steps: int = 1000,
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
        jnp.asarray(features, jnp.float32), jnp.asarray(labels), classes=classes, l2=l2,
        max_steps=max_steps, tolerance=tolerance,
    )


@functools.partial(jax.jit, static_argnames=("classes", "max_steps"))
def _solve(features, labels, *, classes: int, l2: float, max_steps: int, tolerance: float):
    def objective(solution: Solution):
        logits = jnp.matmul(features, solution.weights, precision="highest") + solution.bias
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return cross_entropy + l2 / 2 * jnp.sum(solution.weights**2)

    tx = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry):
        solution, state, _ = carry
        value, grad = value_and_grad(solution, state=state)
        updates, state = tx.update(
            grad, state, solution, value=value, grad=grad, value_fn=objective
        )
        solution = optax.apply_updates(solution, updates)
        return solution, state, optax.tree.norm(optax.tree.get(state, "grad"), ord=jnp.inf)

    def unfinished(carry):
        _, state, largest = carry
        return (optax.tree.get(state, "count") < max_steps) & (largest > tolerance)

    zero = Solution(jnp.zeros((features.shape[1], classes)), jnp.zeros(classes))
    solution, _, _ = jax.lax.while_loop(unfinished, step, (zero, tx.init(zero), jnp.inf))
    return solution
