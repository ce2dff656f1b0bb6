"""Neighbors and ridge regression for several classes and numbers, as in NumPy and scikit-learn."""

import types

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score

from mae_jax.evals import knn, logistic, ridge
from mae_jax.types import UserError

RNG = np.random.default_rng(0)


class Splits:
    """Features and labels of both splits, in batches of one size."""

    def __init__(self, **splits):
        self.splits = splits

    def eval(self, split, limit=None, then=""):
        """Batches of 8 rows."""
        fields = {name: rows[:limit] for name, rows in self.splits[split].items()}
        count = len(fields["features"])
        for start in range(0, count, 8):
            rows = np.arange(start, start + 8)
            batch = {name: x[np.minimum(rows, count - 1)] for name, x in fields.items()}
            yield {**batch, "valid": rows < count}

    def source(self, split):
        """Without names."""
        return types.SimpleNamespace(names={})


def made(field, labels_of):
    """60 training and 21 test examples, whose labels follow from their features."""
    weights = RNG.normal(size=(6, 3))
    splits = {}
    for split, count in (("train", 60), ("test", 21)):
        features = RNG.normal(size=(count, 6)).astype(np.float32)
        noisy = features @ weights + RNG.normal(size=(count, 3))
        splits[split] = {"features": features, field: labels_of(noisy)}
    return Splits(**splits)


def nearest(data, k, temperature=0.07):
    """Neighbors [M, k] of test examples, and the weights of their votes."""
    keys, queries = (data.splits[split]["features"].astype(float) for split in ("train", "test"))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    similarity = unit(queries) @ unit(keys).T
    index = np.argsort(-similarity, axis=1)[:, :k]
    return index, np.exp(np.take_along_axis(similarity, index, axis=1) / temperature)


def test_neighbors_of_several_classes():
    data = made("labels", lambda x: (x > 0).astype(np.uint8))
    train = data.splits["train"]["labels"]
    train[RNG.random(train.shape) < 0.2] = 255
    found = knn.make(k=(3, 9), field="labels")(lambda batch: batch, data)
    for k in (3, 9):
        index, weights = nearest(data, k)
        labels = train[index].astype(float)  # [M, k, 3]
        weights = weights[..., None] * (labels != 255)
        scores = (weights * labels).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-300)
        expected = roc_auc_score(data.splits["test"]["labels"], scores)
        assert found[f"knn_auroc_{k}"] == pytest.approx(expected, abs=1e-3)


def test_each_class_against_its_absence():
    data = made("labels", lambda x: (x > 0).astype(np.uint8))
    train, test = data.splits["train"], data.splits["test"]
    train["labels"][RNG.random(train["labels"].shape) < 0.2] = 255
    mean, std = train["features"].mean(axis=0), train["features"].std(axis=0) + 1e-6
    features, scaled = (train["features"] - mean) / std, (test["features"] - mean) / std
    solution, scores = logistic.fit_each(features, train["labels"], l2=0.1), []
    for k, column in enumerate(train["labels"].T):
        rows = column != 255
        # The penalty of two classes with opposite weights is half of that of their difference.
        theirs = LogisticRegression(C=2 / (0.1 * rows.sum()), tol=1e-9)
        theirs.fit(features[rows], column[rows])
        np.testing.assert_allclose(solution.weights[:, k], theirs.coef_[0], atol=2e-3)
        np.testing.assert_allclose(solution.bias[k], theirs.intercept_[0], atol=2e-3)
        scores.append(theirs.decision_function(scaled))
    found = logistic.make(l2=0.1, field="labels")(lambda batch: batch, data)
    expected = roc_auc_score(test["labels"], np.stack(scores, axis=1))
    assert found == {"logistic_auroc": pytest.approx(expected, abs=1e-3)}
    penalties = (0.1, 1e4)
    best = logistic.choose(features, train["labels"], penalties, logistic.auroc, logistic.fit_each)
    assert best in penalties


@pytest.mark.parametrize("values", [1, 3])
def test_numbers_from_frozen_features(values):
    data = made("value", lambda x: np.float32(x[:, 0] if values == 1 else x))
    train, test = data.splits["train"], data.splits["test"]
    index, weights = nearest(data, 5)
    labels = train["value"].astype(float).reshape(60, -1)[index]
    predicted = (weights[..., None] * labels).sum(axis=1) / weights.sum(axis=1)[:, None]
    expected = r2_score(test["value"].reshape(21, -1), predicted)
    assert knn.make(k=5, field="value")(lambda batch: batch, data)["knn_r2"] == pytest.approx(
        expected, abs=1e-4
    )
    found = ridge.make(l2=0.1)(lambda batch: batch, data)
    mean, std = train["features"].mean(axis=0), train["features"].std(axis=0) + 1e-6
    scaled = lambda x: ((x - mean) / std).astype(np.float64)
    theirs = Ridge(alpha=0.1 * 60).fit(scaled(train["features"]), train["value"])
    predicted = theirs.predict(scaled(test["features"]))
    assert found["ridge_r2"] == pytest.approx(r2_score(test["value"], predicted), rel=1e-9)
    assert ridge.choose(scaled(train["features"]), train["value"], (1e-3, 1e6)) == 1e-3


def test_refusals():
    with pytest.raises(
        UserError, match="knn: field 'size' is unknown: choose label, labels, value"
    ):
        knn.make(field="size")
    with pytest.raises(UserError, match="logistic: field 'value' is unknown: choose label, labels"):
        logistic.make(field="value")
    with pytest.raises(UserError, match="penalties must be positive"):
        ridge.make(l2=0.0)
