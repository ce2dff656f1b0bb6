"""Weighted k-nearest-neighbour classification of frozen features (the protocol of Wu et al. 2018,
arXiv 1805.01978): cosine similarity, votes weighted by exp(similarity / temperature).
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict, check_limit, extract
from mae_jax.types import Metric, UserError

KEYS, QUERIES = 16384, 256
"""Rows that are compared at once: the memory for it does not grow with the number of either."""


def make(*, k: int | Sequence[int] = 20, temperature: float = 0.07, limit: int | None = None):
    """An evaluator: run(predict, data) -> {'knn': accuracy in [0, 1] on the test split}.

    Args:
        k: number of neighbours, taken from the training split; or several numbers, which take no
            longer than the largest: knn(k=(1, 20)) -> {'knn_1': accuracy, 'knn_20': accuracy}.
        temperature: of the votes.
        limit: use this many training examples only.
    """
    counts = {f"knn_{one}": one for one in k} if isinstance(k, (tuple, list)) else {"knn": k}
    if not counts or any(type(one) is not int for one in counts.values()):
        raise UserError(f"knn: k={k!r} should be of type int, or several: k=(1, 5, 20)")
    check_limit("knn", limit)
    if min(counts.values()) < 1 or not 0 < temperature < math.inf:
        raise UserError(f"knn(k={k}, temperature={temperature}): both must be positive")

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        train = extract(predict, data, "train", limit)
        test = extract(predict, data, "test")
        similarity, index = neighbours(train.features, test.features, k=max(counts.values()))
        labels = train.labels[index]
        return {
            name: float(np.mean(vote(similarity[:, :k], labels[:, :k], temperature) == test.labels))
            for name, k in counts.items()
        }

    most = max(counts.values())
    if limit is not None and most > limit:
        raise UserError(f"knn: k={most} neighbours of limit={limit} training examples: lower k")
    return Evaluator(
        name="knn",
        run=run,
        outputs=("features",),
        needs={"train": ("label",), "test": ("label",)},
        metrics=dict.fromkeys(counts, Metric()),
        baselines=True,
        examples=most,
        limit=limit,
    )


def neighbours(keys: np.ndarray, queries: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The keys with the largest cosine similarity to each query, the largest first.

    Args:
        keys: [N, D] float32. They stay where they are; a chunk at a time is on the device.
        queries: [M, D] float32.
        k: number of neighbours, at most N.

    Returns:
        Similarities [M, k] float32, and rows of keys [M, k] int32. Of keys that are equally
        similar, the first ones are nearer.

    Raises:
        UserError: fewer keys than neighbours.
    """
    if k > len(keys):
        raise UserError(f"knn: k={k} neighbours of only {len(keys)} training examples: lower k")
    parts = -(-len(queries) // QUERIES)
    padded = np.pad(queries, ((0, parts * QUERIES - len(queries)), (0, 0)))
    padded = jnp.asarray(padded.reshape(parts, QUERIES, -1))
    nearest = jnp.full((parts, QUERIES, k), -jnp.inf), jnp.zeros((parts, QUERIES, k), jnp.int32)
    chunk = -(-len(keys) // -(-len(keys) // KEYS))
    for seen in range(0, len(keys), chunk):
        start = min(seen, len(keys) - chunk)  # the last chunk overlaps: one shape, one compilation
        nearest = _merge(*nearest, padded, keys[start : start + chunk], start, seen)
        # Or all chunks would be put on the device ahead of their use.
        jax.block_until_ready(nearest)
    similarity, index = (np.asarray(found).reshape(-1, k)[: len(queries)] for found in nearest)
    return similarity, index


def vote(similarity: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """The class of each query that its neighbours vote for; of equals, the smallest.

    Args:
        similarity: [M, k], the largest first.
        labels: [M, k] int, of the neighbours, from 0.
        temperature: the lower, the more the nearest ones count.

    Returns:
        [M] int.
    """
    weights = np.exp((similarity - similarity[:, :1]).astype(np.float64) / temperature)
    classes = int(labels.max()) + 1
    predicted = []
    for start in range(0, len(labels), QUERIES):
        some = slice(start, start + QUERIES)
        count = len(labels[some])
        place = classes * np.arange(count)[:, None] + labels[some]
        votes = np.bincount(place.ravel(), weights[some].ravel(), count * classes)
        predicted.append(np.argmax(votes.reshape(count, classes), axis=1))
    return np.concatenate(predicted)


@jax.jit
def _merge(similarity, index, queries, keys, start, seen):
    """The nearest of those so far [parts, Q, k] and of these keys [chunk, D], the rows from `start`
    on, without those before `seen`.
    """
    keys = _unit(keys)
    k = similarity.shape[2]
    rows = start + jnp.arange(len(keys))

    def merge(part):
        similarity, index, queries = part
        these = jnp.matmul(_unit(queries), keys.T, precision="highest")
        these = jnp.where(rows >= seen, these, -jnp.inf)
        # Without the barrier XLA on CPU merges what follows into the selection, and then sorts all
        # of it, which is far slower.
        both = jnp.concatenate([similarity, these], axis=1)
        similarity, place = jax.lax.optimization_barrier(jax.lax.top_k(both, k))
        earlier = jnp.take_along_axis(index, place, axis=1, mode="clip")
        return similarity, jnp.where(place < k, earlier, start + place - k)

    return jax.lax.map(merge, (similarity, index, queries))


def _unit(x: jax.Array) -> jax.Array:
    """Rows [N, D] scaled to length 1."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
