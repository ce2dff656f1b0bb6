"""Whitened k-NN and the spectrum of features against float64 numpy."""

import numpy as np
import pytest

from mae_jax.evals import knn, spectrum, whitening
from mae_jax.evals.whitening import Whitening
from mae_jax.settings import make_evaluators
from mae_jax.types import UserError
from tests.evals.test_knn import Splits, by_scikit_learn, clusters, predict


def mixed(features, seed=3):
    """Features whose directions have variances from 1e-2 to 1e4, and a mean far from zero."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(features.shape[1],) * 2))
    scales = np.logspace(-1, 2, features.shape[1])
    return (features @ (scales[:, None] * rotation) + 30).astype(np.float32)


def symmetric(train, features):
    """Whitened by the inverse square root of the covariance, in float64."""
    train, features = train.astype(np.float64), features.astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(train.T, bias=True))
    ridge = whitening.RIDGE * values.mean()
    return (features - train.mean(axis=0)) @ (vectors / np.sqrt(values + ridge)) @ vectors.T


def cosines(x, y):
    """Cosine similarities of all rows of x and y."""
    x, y = (z.astype(np.float64) / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return x @ y.T


@pytest.mark.parametrize(("chunk", "width"), [(84, 12), (12_000, 12), (1200, 180)])
def test_cosines_are_those_of_the_symmetric_whitening(monkeypatch, chunk, width):
    """Also in chunks, and of features that are wider than there are examples."""
    monkeypatch.setattr(whitening, "CHUNK", chunk)
    options = dict(width=width)
    train, test = mixed(clusters(100, **options)[0]), mixed(clusters(30, seed=1, **options)[0])
    whitened = Whitening(train)
    assert whitened(test).dtype == np.float32
    expected = cosines(symmetric(train, test), symmetric(train, train))
    np.testing.assert_allclose(cosines(whitened(test), whitened(train)), expected, atol=2e-5)


def test_the_covariance_of_whitened_training_features_is_the_identity(monkeypatch):
    monkeypatch.setattr(whitening, "RIDGE", 0.0)
    train = mixed(clusters(300)[0])
    found = Whitening(train)(train)
    np.testing.assert_allclose(found.mean(axis=0), np.zeros(12), atol=1e-4)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(12), atol=1e-4)


def test_directions_without_variance_stay_finite():
    """Fewer examples than dimensions, and no variance at all."""
    features = clusters(8, width=20)[0]
    assert np.isfinite(Whitening(features)(features)).all()
    assert not Whitening(np.ones((5, 4), np.float32))(np.ones((2, 4), np.float32)).any()


def test_whitened_neighbors_vote_as_in_scikit_learn(monkeypatch):
    """Also where the chunks of keys overlap. Plain neighbors of these features are worse."""
    monkeypatch.setattr(knn, "KEYS", 128)
    plain = [clusters(300), clusters(75, seed=1)]
    train, test = ((mixed(features), labels) for features, labels in plain)
    data = Splits(train=train, test=test)
    found = knn.make(k=(1, 9), whiten=True)(predict, data)
    keys, queries = (symmetric(train[0], split[0]) for split in (train, test))
    expected = {
        f"knn_whitened_{k}": np.mean(by_scikit_learn(keys, train[1], queries, k, 0.07) == test[1])
        for k in (1, 9)
    }
    assert found == pytest.approx(expected)
    assert found["knn_whitened_9"] > knn.make(k=9)(predict, data)["knn"]


def test_plain_and_whitened_neighbors_side_by_side():
    assert len(make_evaluators("knn(k=3)|knn(k=3, whiten=True)|spectrum")) == 3
    with pytest.raises(UserError, match="knn is there twice"):
        make_evaluators("knn(k=(1, 3), whiten=True)|knn(k=(3, 5), whiten=True)")


def test_rankme_by_its_definition():
    """Of wide and tall matrices, orthogonal rows, and multiples of one row."""
    rng = np.random.default_rng(0)
    for shape in ((40, 12), (12, 40)):
        features = rng.normal(size=shape) + 1
        values = np.linalg.svd(features, compute_uv=False)
        shares = values / values.sum() + 1e-7
        expected = np.exp(-(shares * np.log(shares)).sum())
        assert spectrum.rankme(features) == pytest.approx(expected, rel=1e-9)
    assert spectrum.rankme(5 * np.eye(8)) == pytest.approx(8, rel=1e-4)
    assert spectrum.rankme(np.outer(rng.normal(size=40), np.ones(8))) == pytest.approx(1, abs=1e-4)


def test_alpha_is_the_exponent_of_a_power_law():
    """Of features with variances index ** -1.3, at any mean; others do not count."""
    rng = np.random.default_rng(0)
    base, _ = np.linalg.qr(rng.normal(size=(200, 31)))
    base, _ = np.linalg.qr(base - base.mean(axis=0))  # orthonormal and centered columns
    deviations = np.arange(1, 32) ** -0.65
    deviations[:4] = 9.0
    rotation, _ = np.linalg.qr(rng.normal(size=(31, 31)))
    features = (base * deviations) @ rotation + 7
    assert spectrum.alpha(features, first=5, last=31) == pytest.approx(1.3, abs=1e-6)
    assert spectrum.alpha(features, first=5, last=99) == pytest.approx(1.3, abs=1e-6)
    few = features[:, :1] * np.ones((1, 20))
    with pytest.raises(UserError, match="features with 1 dimensions have no variances 11 to 50"):
        spectrum.alpha(few, first=11, last=50)


def test_the_spectrum_of_the_test_split():
    """Padded rows do not count, and no labels are needed."""
    features, labels = clusters(75, seed=1)
    evaluator = spectrum.make(first=2, last=10)
    found = evaluator(predict, Splits(test=(features, labels)))
    wide = features.astype(np.float64)
    assert found == pytest.approx(
        {"rankme": spectrum.rankme(wide), "alpha": spectrum.alpha(wide, first=2, last=10)}
    )
    assert evaluator.needs == {"test": ()}
    with pytest.raises(UserError, match="needs 1 <= first < last"):
        spectrum.make(first=5, last=5)
