"""k-nearest-neighbour classification against scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from mae_jax.evals import knn
from mae_jax.types import UserError


def clusters(count, *, width=12, classes=5, seed=0, means_seed=99):
    """Features [count, width] of overlapping classes, of very different lengths, and labels."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(means_seed).normal(size=(classes, width))
    labels = rng.integers(0, classes, count)
    features = means[labels] + 1.5 * rng.normal(size=(count, width))
    return (features * rng.uniform(0.1, 10, (count, 1))).astype(np.float32), labels


def by_scikit_learn(keys, labels, queries, k, temperature):
    """The same classes in float64."""
    model = KNeighborsClassifier(
        n_neighbors=k,
        metric="cosine",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    return model.fit(keys.astype(np.float64), labels).predict(queries.astype(np.float64))


class Splits:
    """Evaluation data from arrays: split -> (features, labels), two padded batches of each."""

    def __init__(self, **splits):
        self.splits = splits

    def eval(self, split, limit=None):
        """Batches, the second of them with two rows of nonsense that 'mask' excludes."""
        features, labels = (array[:limit] for array in self.splits[split])
        half = len(labels) // 2
        yield {"image": features[:half], "label": labels[:half], "mask": np.ones(half, bool)}
        yield {
            "image": np.concatenate([features[half:], np.full((2, features.shape[1]), 1e3)]),
            "label": np.concatenate([labels[half:], [77, 78]]),
            "mask": np.arange(len(labels) - half + 2) < len(labels) - half,
        }


def predict(batch):
    """The images are their own features."""
    return {"features": jnp.asarray(batch["image"]), "label": batch["label"], "mask": batch["mask"]}


@pytest.mark.parametrize(
    ("k", "temperature", "chunk"), [(1, 0.07, 64), (20, 0.07, 64), (20, 1.0, 512), (300, 0.07, 7)]
)
def test_equal_to_scikit_learn(k, temperature, chunk):
    """Also where the 150 queries are no multiple of the chunk, and with all keys as neighbours."""
    (keys, labels), (queries, truth) = clusters(300), clusters(150, seed=1)
    found = knn.classify(keys, labels, queries, k=k, temperature=temperature, chunk=chunk)
    expected = by_scikit_learn(keys, labels, queries, k, temperature)
    assert found.shape == (150,) and found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    assert 0.4 < np.mean(found == truth) < 0.98, "neither chance nor trivial"


def test_votes_are_weighted_by_similarity():
    """One neighbour at 8 degrees outvotes two at 53 at a low temperature, not at a high one."""
    keys = np.array([[1, 0.15], [0.6, 0.8], [0.6, -0.8]], np.float32)
    labels, query = np.array([0, 1, 1]), np.array([[1, 0]], np.float32)
    assert knn.classify(keys, labels, query, k=3, temperature=0.07) == [0]
    assert knn.classify(keys, labels, query, k=3, temperature=10.0) == [1]


def test_low_temperatures_do_not_overflow():
    (keys, labels), (queries, _) = clusters(50), clusters(20, seed=1)
    found = knn.classify(keys, labels, queries, k=5, temperature=1e-3, chunk=20)
    np.testing.assert_array_equal(found, knn.classify(keys, labels, queries, k=1, chunk=20))


def test_more_neighbours_than_examples():
    keys, labels = clusters(10)
    with pytest.raises(UserError, match="k=11 neighbours of only 10 training examples"):
        knn.classify(keys, labels, keys, k=11)


def test_evaluator_ignores_padded_rows_and_limits_the_training_set():
    train, test = clusters(301), clusters(75, seed=1)
    for limit in (None, 40):
        run = knn.make(k=9, temperature=0.5, limit=limit)
        metrics = run(predict, Splits(train=train, test=test))
        expected = by_scikit_learn(train[0][:limit], train[1][:limit], test[0], 9, 0.5)
        assert metrics == {"knn": pytest.approx(np.mean(expected == test[1]))}


@pytest.mark.parametrize("options", [{"k": 0}, {"temperature": 0}, {"temperature": -1}])
def test_wrong_options(options):
    with pytest.raises(UserError, match="must be positive"):
        knn.make(**options)
