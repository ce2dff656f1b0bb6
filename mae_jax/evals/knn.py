"""Weighted k-nearest-neighbour classification of frozen features (the protocol of Wu et al. 2018,
arXiv 1805.01978): cosine similarity, votes weighted by exp(similarity / temperature).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.evals.features import EvalData, Predict, extract
from mae_jax.types import UserError


def make(*, k: int = 20, temperature: float = 0.07, limit: int | None = None):
    """An evaluator: run(predict, data) -> {'knn': accuracy in [0, 1] on the test split}.

    Args:
        k: number of neighbours, taken from the training split.
        temperature: of the votes.
        limit: use this many training examples only.
    """
    if k < 1 or temperature <= 0:
        raise UserError(f"knn(k={k}, temperature={temperature}): both must be positive")

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        train = extract(predict, data, "train", limit)
        test = extract(predict, data, "test")
        predicted = classify(
            train.features, train.labels, test.features, k=k, temperature=temperature
        )
        return {"knn": float(np.mean(predicted == test.labels))}

    return run


def classify(
    keys: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    *,
    k: int,
    temperature: float = 0.07,
    chunk: int = 512,
) -> np.ndarray:
    """The class of every query.

    Args:
        keys: [N, D] float32, of known class. labels: [N] int, from 0.
        queries: [M, D] float32.
        k: number of neighbours, at most N.
        chunk: queries that are compared with all keys at once.

    Returns:
        [M] int32.

    Raises:
        UserError: fewer keys than neighbours.
    """
    if k > len(keys):
        raise UserError(f"knn: k={k} neighbours of only {len(keys)} training examples: lower k")
    keys, labels = unit(jnp.asarray(keys)), jnp.asarray(labels)
    classes = int(labels.max()) + 1
    padded = np.pad(queries, ((0, -len(queries) % chunk), (0, 0)))
    votes = [
        _vote(keys, labels, jnp.asarray(part), k=k, temperature=temperature, classes=classes)
        for part in padded.reshape(-1, chunk, padded.shape[1])
    ]
    return np.concatenate(votes)[: len(queries)]


def unit(x: jax.Array) -> jax.Array:
    """Rows [N, D] scaled to length 1."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnames=("k", "temperature", "classes"))
def _vote(keys, labels, queries, *, k: int, temperature: float, classes: int):
    similarity = jnp.matmul(unit(queries), keys.T, precision="highest")
    # Without the barrier XLA on CPU merges the slice below into the selection, and then sorts
    # all keys: 150 times slower.
    nearest, index = jax.lax.optimization_barrier(jax.lax.top_k(similarity, k))
    weights = jnp.exp((nearest - nearest[:, :1]) / temperature)
    votes = jnp.sum(jax.nn.one_hot(labels[index], classes) * weights[:, :, None], axis=1)
    return jnp.argmax(votes, axis=1).astype(jnp.int32)
