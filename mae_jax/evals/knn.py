"""Weighted k-nearest-neighbor classification of frozen features (the protocol of Wu et al. 2018,
arXiv 1805.01978): cosine similarity, votes weighted by exp(similarity / temperature). Optionally of
whitened features, with the mean and covariance of the training features. Of several classes per
image, or of numbers, the prediction is the weighted mean of the neighbors' labels.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.evals import multilabel, regression
from mae_jax.evals.features import (
    LAYERED,
    EvalData,
    Evaluator,
    Predict,
    check_limit,
    extract,
    layered,
)
from mae_jax.evals.whitening import Whitening
from mae_jax.spec import check_choice
from mae_jax.types import IGNORE, Metric, UserError, layer_output

METRICS = {
    "label": ("", "", None),
    "labels": ("_auroc", "auroc", multilabel.measure_of),
    "value": ("_r2", "r2", regression.measure_of),
}
"""Field -> ending of the metric's name, the metric, and its `measure_of`; None: accuracy."""
KEYS, QUERIES = 16384, 256
"""Rows compared at once, so that device memory does not grow with the number of examples."""


def make(
    *,
    k: int | Sequence[int] = 20,
    temperature: float = 0.07,
    whiten: bool = False,
    field: str = "label",
    limit: int | None = None,
    layer: int | None = None,
    pool: str = "",
) -> Evaluator:
    """An evaluator: run(predict, data) -> {'knn': accuracy in [0, 1] on the test split}.

    Args:
        k: number of neighbors from the training split; or several numbers, at the cost of the
            largest: knn(k=(1, 20)) -> {'knn_1': accuracy, 'knn_20': accuracy}.
        temperature: of the weights of the votes.
        whiten: whiten the features, see `Whitening`; the metrics are then 'knn_whitened' or
            'knn_whitened_20'. Baselines are whitened in the same way, each by its own features.
        field: 'label' of one class; 'labels' of several, for 'knn_auroc', the mean area under the
            ROC curve, in place of 'knn'; or 'value', for 'knn_r2', the share of the variance that
            is explained.
        limit: maximum number of training examples; None: all.
        layer, pool: features of a layer of the encoder, see `types.layer_output`; metrics then end
            in 'layer_2' or 'layer_2_mean'.

    Raises:
        UserError: an argument out of range, or more neighbors than training examples.
    """
    check_choice("knn: field", field, METRICS)
    suffix, kind, measure_of = METRICS[field]
    name = f"knn{suffix}_whitened" if whiten else f"knn{suffix}"
    counts = {f"{name}_{one}": one for one in k} if isinstance(k, (tuple, list)) else {name: k}
    if not counts or any(type(one) is not int for one in counts.values()):
        raise UserError(f"knn: k={k!r} should be of type int, or several: k=(1, 5, 20)")
    check_limit("knn", limit)
    output, metrics = layer_output(layer, pool), layered(counts, layer, pool)
    if min(counts.values()) < 1 or not 0 < temperature < math.inf:
        raise UserError(f"knn(k={k}, temperature={temperature}): both must be positive")

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        train = extract(predict, data, "train", limit, output=output, field=field)
        test = extract(predict, data, "test", output=output, field=field)
        transform = Whitening(train.features) if whiten else unchanged
        keys, queries = train.features, transform(test.features)
        similarity, index = neighbors(keys, queries, k=max(counts.values()), transform=transform)
        values = {}
        for name, k in counts.items():
            labels, near = train.labels[index[:, :k]], similarity[:, :k]  # [M, k, ...], [M, k]
            if measure_of is None:
                value = float(np.mean(vote(near, labels, temperature) == test.labels))
            else:
                scores = means(near, labels.reshape(*near.shape, -1), temperature)  # [M, K]
                measure = measure_of(scores, test.labels, [str(n) for n in range(scores.shape[1])])
                value = measure(np.ones(len(scores)))[kind]
            values[metrics[name]] = value
        return {name: value for name, value in values.items() if not np.isnan(value)}

    most = max(counts.values())
    if limit is not None and most > limit:
        raise UserError(f"knn: k={most} neighbors of limit={limit} training examples: lower k")
    return Evaluator(
        name="knn",
        run=run,
        outputs=(output,),
        needs={"train": (field,), "test": (field,)},
        metrics=dict.fromkeys(metrics.values(), Metric("", 3) if field == "value" else Metric()),
        advice=LAYERED if "/" in output else "",
        baselines=True,
        examples=most,
        limit=limit,
    )


def unchanged(features: np.ndarray) -> np.ndarray:
    """The features themselves."""
    return features


def neighbors(
    keys: np.ndarray,
    queries: np.ndarray,
    *,
    k: int,
    transform: Callable[[np.ndarray], np.ndarray] = unchanged,
) -> tuple[np.ndarray, np.ndarray]:
    """The keys with the largest cosine similarity to each query, the largest first.

    Args:
        keys: [N, D] float32 on the host; one chunk at a time is copied to the device.
        queries: [M, D] float32.
        k: number of neighbors, at most N.
        transform: of the keys, applied to one chunk at a time.

    Returns:
        Similarities [M, k] float32, and rows of keys [M, k] int32. Of equally similar keys, the
        one with the smaller row comes first.

    Raises:
        UserError: fewer keys than neighbors.
    """
    if k > len(keys):
        raise UserError(f"knn: k={k} neighbors of only {len(keys)} training examples: lower k")
    blocks = -(-len(queries) // QUERIES)
    padded = np.pad(queries, ((0, blocks * QUERIES - len(queries)), (0, 0)))
    padded = jnp.asarray(padded.reshape(blocks, QUERIES, -1))  # [blocks, Q, D]
    nearest = jnp.full((blocks, QUERIES, k), -jnp.inf), jnp.zeros((blocks, QUERIES, k), jnp.int32)
    chunk = -(-len(keys) // -(-len(keys) // KEYS))
    for seen in range(0, len(keys), chunk):
        start = min(seen, len(keys) - chunk)  # the last chunk overlaps: one shape, one compilation
        rows = transform(keys[start : start + chunk])
        nearest = _merge(*nearest, padded, rows, start, seen)
        # Otherwise all chunks would be copied to the device ahead of their use.
        jax.block_until_ready(nearest)
    similarity, index = (np.asarray(x).reshape(-1, k)[: len(queries)] for x in nearest)  # [M, k]
    return similarity, index


def vote(similarity: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """Classifies each query by the votes of its neighbors; a tie goes to the smallest class.

    Args:
        similarity: [M, k], the largest first.
        labels: [M, k] int, of the neighbors, from 0.
        temperature: a lower one gives more weight to the nearest neighbors.

    Returns:
        Classes [M] int.
    """
    weights = np.exp((similarity - similarity[:, :1]).astype(np.float64) / temperature)
    classes = int(labels.max()) + 1
    predicted = []
    for start in range(0, len(labels), QUERIES):
        rows = slice(start, start + QUERIES)
        count = len(labels[rows])
        bins = classes * np.arange(count)[:, None] + labels[rows]  # [count, k]
        votes = np.bincount(bins.ravel(), weights[rows].ravel(), count * classes)
        predicted.append(np.argmax(votes.reshape(count, classes), axis=1))
    return np.concatenate(predicted)


def means(similarity: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """The weighted mean of the labels of the neighbors of each query.

    Args:
        similarity: [M, k], the largest first.
        labels: [M, k, K] of the neighbors; uint8 ones of 255 are unknown and left out.
        temperature: see `vote`.

    Returns:
        [M, K] float64; 0 where all labels are unknown.
    """
    weights = np.exp((similarity - similarity[:, :1]).astype(np.float64) / temperature)
    known = np.ones(labels.shape) if labels.dtype != np.uint8 else labels != IGNORE
    total = np.einsum("mk,mkc->mc", weights, known)
    summed = np.einsum("mk,mkc->mc", weights, known * labels.astype(np.float64))
    return summed / np.maximum(total, np.finfo(float).tiny)


@jax.jit
def _merge(similarity, index, queries, keys, start, seen):
    """Merges the nearest keys so far, [blocks, Q, k], with a chunk of keys [chunk, D], whose first
    row is `start`. Rows before `seen` were merged before and are ignored.
    """
    keys = _unit(keys)
    k = similarity.shape[2]
    rows = start + jnp.arange(len(keys))

    def merge(block):
        similarity, index, queries = block
        new = jnp.matmul(_unit(queries), keys.T, precision="highest")  # [Q, chunk]
        new = jnp.where(rows >= seen, new, -jnp.inf)
        # Without the barrier XLA on CPU fuses the following operations into top_k and then sorts
        # the whole array, which is far slower.
        both = jnp.concatenate([similarity, new], axis=1)  # [Q, k + chunk]
        similarity, column = jax.lax.optimization_barrier(jax.lax.top_k(both, k))
        earlier = jnp.take_along_axis(index, column, axis=1, mode="clip")  # [Q, k]
        return similarity, jnp.where(column < k, earlier, start + column - k)

    return jax.lax.map(merge, (similarity, index, queries))


def _unit(x: jax.Array) -> jax.Array:
    """Rows [N, D] scaled to length 1."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
