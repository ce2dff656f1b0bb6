"""k-nearest-neighbor classification against scikit-learn."""

import subprocess
import sys
from pathlib import Path

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
        """Batches, the second of them with two rows of nonsense that 'valid' excludes."""
        features, labels = (array[:limit] for array in self.splits[split])
        half = len(labels) // 2
        yield {"image": features[:half], "label": labels[:half], "valid": np.ones(half, bool)}
        yield {
            "image": np.concatenate([features[half:], np.full((2, features.shape[1]), 1e3)]),
            "label": np.concatenate([labels[half:], [77, 78]]),
            "valid": np.arange(len(labels) - half + 2) < len(labels) - half,
        }


def predict(batch):
    """The images are their own features."""
    return {
        "features": jnp.asarray(batch["image"]),
        "label": batch["label"],
        "valid": batch["valid"],
    }


def classify(keys, labels, queries, k, temperature=0.07):
    """The class of each query."""
    similarity, index = knn.neighbors(keys, queries, k=k)
    return knn.vote(similarity, labels[index], temperature)


@pytest.mark.parametrize("chunks", [(512, 64), (300, 150), (299, 7), (100, 1000), (7, 64)], ids=str)
@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (20, 1.0), (300, 0.07)])
def test_equal_to_scikit_learn(monkeypatch, chunks, k, temperature):
    """Also where the chunks do not divide the 300 keys or the 150 queries, or hold fewer keys than
    there are neighbors, and with all keys as neighbors.
    """
    monkeypatch.setattr(knn, "KEYS", chunks[0])
    monkeypatch.setattr(knn, "QUERIES", chunks[1])
    (keys, labels), (queries, truth) = clusters(300), clusters(150, seed=1)
    found = classify(keys, labels, queries, k, temperature)
    expected = by_scikit_learn(keys, labels, queries, k, temperature)
    assert found.shape == (150,)
    np.testing.assert_array_equal(found, expected)
    assert 0.4 < np.mean(found == truth) < 0.98, "neither chance nor trivial"


def test_equal_to_scikit_learn_with_more_keys_than_a_chunk():
    (keys, labels), (queries, _) = (
        clusters(2 * knn.KEYS + 1001, width=48, classes=30),
        clusters(knn.QUERIES + 100, width=48, classes=30, seed=1),
    )
    similarity, index = knn.neighbors(keys, queries, k=100)
    for k in (1, 5, 100):
        found = knn.vote(similarity[:, :k], labels[index[:, :k]], 0.07)
        np.testing.assert_array_equal(found, by_scikit_learn(keys, labels, queries, k, 0.07))


def test_neighbors_stand_in_order(monkeypatch):
    """The most similar first, and of equal ones the first of the keys, also across chunks."""
    monkeypatch.setattr(knn, "KEYS", 4)
    (keys, _), (queries, _) = clusters(6), clusters(9, seed=1)
    keys = np.concatenate([keys, keys[::-1], -keys])
    similarity, index = knn.neighbors(keys, queries, k=18)
    np.testing.assert_array_equal(np.sort(index, axis=1), np.tile(np.arange(18), (9, 1)))
    unit = lambda x: x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    exact = np.take_along_axis(unit(queries) @ unit(keys).T, index, axis=1)
    np.testing.assert_allclose(similarity, exact, atol=1e-6)
    assert (np.diff(similarity) <= 0).all()
    assert (np.diff(index) > 0)[np.diff(similarity) == 0].all()
    assert index.dtype == np.int32 and similarity.dtype == np.float32


def test_votes_are_weighted_by_similarity():
    """One neighbor at 8 degrees outvotes two at 53 at a low temperature, not at a high one."""
    keys = np.array([[1, 0.15], [0.6, 0.8], [0.6, -0.8]], np.float32)
    labels, query = np.array([0, 1, 1]), np.array([[1, 0]], np.float32)
    assert classify(keys, labels, query, 3, temperature=0.07) == [0]
    assert classify(keys, labels, query, 3, temperature=10.0) == [1]


def test_low_temperatures_do_not_overflow():
    (keys, labels), (queries, _) = clusters(50), clusters(20, seed=1)
    found = classify(keys, labels, queries, 5, temperature=1e-3)
    np.testing.assert_array_equal(found, classify(keys, labels, queries, 1))


def test_the_smallest_of_the_classes_with_as_many_votes():
    similarity, labels = np.zeros((2, 4), np.float32), np.array([[3, 1, 3, 1], [2, 2, 0, 1]])
    np.testing.assert_array_equal(knn.vote(similarity, labels, 0.07), [1, 2])


def test_more_neighbors_than_examples():
    keys, labels = clusters(10)
    with pytest.raises(UserError, match="k=11 neighbors of only 10 training examples"):
        knn.neighbors(keys, keys, k=11)


def test_evaluator_ignores_padded_rows_and_limits_the_training_set():
    train, test = clusters(301), clusters(75, seed=1)
    for limit in (None, 40):
        run = knn.make(k=9, temperature=0.5, limit=limit)
        metrics = run(predict, Splits(train=train, test=test))
        expected = by_scikit_learn(train[0][:limit], train[1][:limit], test[0], 9, 0.5)
        assert metrics == {"knn": pytest.approx(np.mean(expected == test[1]))}


def test_features_that_are_not_finite_are_refused():
    """Similarities to NaN are neither larger nor smaller than others."""
    train, test = clusters(20), clusters(10, seed=1)
    test[0][3] = np.nan
    with pytest.raises(UserError, match="^features: of 10 examples, 1 have a value that is not fi"):
        knn.make(k=3)(predict, Splits(train=train, test=test))


def test_several_numbers_of_neighbors():
    train, test = clusters(301), clusters(75, seed=1)
    metrics = knn.make(k=(1, 5, 40))(predict, Splits(train=train, test=test))
    expected = {
        f"knn_{k}": np.mean(by_scikit_learn(*train, test[0], k, 0.07) == test[1])
        for k in (1, 5, 40)
    }
    assert metrics == pytest.approx(expected)
    alone = knn.make(k=5)(predict, Splits(train=train, test=test))
    assert alone == {"knn": metrics["knn_5"]}


@pytest.mark.parametrize("options", [{"k": 0}, {"k": (5, 0)}, {"temperature": 0}])
def test_options_that_must_be_positive(options):
    with pytest.raises(UserError, match="must be positive"):
        knn.make(**options)


@pytest.mark.parametrize("k", [2.5, (1, 2.5), (), "5", True], ids=str)
def test_numbers_of_neighbors_that_are_none(k):
    with pytest.raises(UserError, match="should be of type int, or several: k="):
        knn.make(k=k)


PEAK = """
import resource, numpy as np
from mae_jax.evals import knn

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
keys = np.random.default_rng(0).standard_normal((200_000, 512), dtype=np.float32)  # 391 MiB
knn.neighbors(keys[:100], keys[:10], k=5)
before = peak()
knn.neighbors(keys, keys[:10], k=5)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.thorough
def test_the_keys_are_never_copied_as_a_whole():
    """Nor all similarities held: 391 MiB each here."""
    command = [sys.executable, "-c", PEAK]
    grown = subprocess.run(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, check=True
    )
    assert int(grown.stdout) < 300, f"{int(grown.stdout)} MiB"
