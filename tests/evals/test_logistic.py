"""Logistic regression against scikit-learn, and the features it is fitted on."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from sklearn.linear_model import LogisticRegression

from mae_jax.evals import logistic
from mae_jax.evals.features import extract
from mae_jax.types import UserError

WIDTH, CLASSES = 24, 4


def examples(count, condition, *, seed):
    """Features [count, WIDTH] whose covariance has this condition number, and labels."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99)
    rotation = np.linalg.qr(shared.normal(size=(WIDTH, WIDTH)))[0]
    scales = np.geomspace(1, condition**-0.5, WIDTH)
    hidden = rng.normal(size=(count, WIDTH))
    logits = hidden @ shared.normal(size=(WIDTH, CLASSES))
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    return (hidden * scales @ rotation.T).astype(np.float32), labels


def objective(weights, bias, features, labels, l2):
    """Mean cross-entropy + l2 / 2 |W|^2 in float64."""
    logits = features.astype(np.float64) @ weights + bias
    logits -= logits.max(axis=1, keepdims=True)
    cross_entropy = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return cross_entropy.mean() + l2 / 2 * np.square(weights).sum()


@pytest.mark.parametrize("condition", [1, 1e4, 1e8])
@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_equal_to_scikit_learn(condition, l2):
    features, labels = examples(500, condition, seed=0)
    others, truth = examples(2000, condition, seed=1)
    solution = logistic.fit(features, labels, l2=l2)
    exact = LogisticRegression(C=1 / (l2 * 500), solver="newton-cg", tol=1e-9, max_iter=1000)
    exact.fit(features.astype(np.float64), labels)

    weights, bias = (np.asarray(array, np.float64) for array in solution)
    assert weights.shape == (WIDTH, CLASSES) and bias.shape == (CLASSES,)
    best = objective(exact.coef_.T, exact.intercept_, features, labels, l2)
    found = objective(weights, bias, features, labels, l2)
    assert best * (1 - 1e-6) < found < best * (1 + 1e-4)
    accuracy = logistic.accuracy(solution, others, truth)
    assert accuracy == pytest.approx(exact.score(others, truth), abs=1e-3)


@pytest.fixture
def as_users_run_it():
    """Full optimization and nothing compiled before, unlike in the other tests."""
    for usual in (False, True):
        jax.config.update("jax_disable_most_optimizations", usual)
        jax.config.update("jax_enable_compilation_cache", usual)
        compilation_cache.reset_cache()
        jax.clear_caches()
        if not usual:
            yield


def gaussians(count, *, distance, condition, seed):
    """Ten classes of standardized features [count, 192] around means of this distance from 0."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    means = distance * shared.normal(size=(10, 192)) / 192**0.5
    turns = [np.linalg.qr(shared.normal(size=(192, 192)))[0] for _ in range(2)]
    mix = turns[0] * np.geomspace(1, condition**-0.5, 192) @ turns[1]
    labels = rng.integers(0, 10, count)
    features = (means[labels] + rng.normal(size=(count, 192))) @ mix
    return (features / np.linalg.norm(mix, axis=0)).astype(np.float32), labels


def timed(function, *args, **options):
    """What a function returns, and the seconds it takes."""
    start = time.perf_counter()
    return jax.block_until_ready(function(*args, **options)), time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.thorough
def test_equal_to_scikit_learn_on_many_examples(as_users_run_it):
    """Run with `pytest -s`, it prints how long both take: our first call compiles."""
    print("\n10,000 x 192     s: first   next   scikit-learn   above the least loss: ours   theirs")
    for name, kind, l2 in [
        ("nearly separable", dict(distance=8, condition=1), 1e-3),
        ("correlated", dict(distance=3, condition=1e4), 1e-2),
    ]:
        features, labels = gaussians(10_000, seed=0, **kind)
        others, truth = gaussians(10_000, seed=1, **kind)
        _, first = timed(logistic.fit, features, labels, l2=l2)
        solution, warm = timed(logistic.fit, features, labels, l2=l2)
        default = LogisticRegression(C=1e-4 / l2, max_iter=5000)
        default, usual = timed(default.fit, features, labels)
        exact = LogisticRegression(C=1e-4 / l2, max_iter=5000, tol=1e-6)
        exact.fit(features.astype(np.float64), labels)
        pairs = solution, (default.coef_.T, default.intercept_), (exact.coef_.T, exact.intercept_)
        found, loose, best = (
            objective(*(np.asarray(a, np.float64) for a in pair), features, labels, l2)
            for pair in pairs
        )
        print(f"{name:16} {first:8.3f} {warm:6.3f} {usual:14.3f}", end="")
        print(f" {found / best - 1:28.0e} {loose / best - 1:8.0e}")
        assert best * (1 - 1e-5) < found < best * (1 + 1e-4), name
        accuracy = logistic.accuracy(solution, others, truth)
        assert accuracy == pytest.approx(exact.score(others, truth), abs=1e-3), name


def test_examples_that_count_nothing_are_left_out():
    features, labels = examples(300, 1, seed=0)
    some = np.random.default_rng(1).random(300) < 0.5
    weighted = logistic.fit(features, labels, l2=1e-2, weights=2.0 * some)
    alone = logistic.fit(features[some], labels[some], l2=1e-2)
    np.testing.assert_allclose(weighted.weights, alone.weights, atol=5e-3)
    np.testing.assert_allclose(weighted.bias, alone.bias, atol=5e-3)


def test_one_class_alone():
    solution = logistic.fit(examples(20, 1, seed=0)[0], np.zeros(20, int), l2=1e-2)
    assert solution.weights.shape == (WIDTH, 1) and not np.any(solution.weights)


def test_intercepts_are_not_penalised():
    """With features that say nothing, the predictions are the shares of the classes."""
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    solution = logistic.fit(np.zeros((100, 5), np.float32), labels, l2=10.0)
    shares = np.exp(solution.bias) / np.exp(solution.bias).sum()
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=1e-3)
    np.testing.assert_allclose(solution.weights, 0, atol=1e-6)


def test_a_weak_penalty_suits_few_useful_features():
    features, labels = examples(300, 1, seed=0)
    assert logistic.choose(features, labels, (1e-3, 1e4)) == 1e-3
    assert logistic.choose(features, labels, (1e4, 1e-3)) == 1e-3


def test_a_strong_penalty_suits_many_useless_features():
    """Three of 200 features tell something: about 72% against 86%."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    features = rng.normal(size=(300, 200)).astype(np.float32)
    features[:, :3] += 0.8 * (2 * labels[:, None] - 1)
    assert logistic.choose(features, labels, (1e-6, 1.0)) == 1.0


def test_one_penalty_alone_is_used():
    assert logistic.choose(np.zeros((0, 3)), np.zeros(0, int), (0.3,)) == 0.3


class Splits:
    """Evaluation data from arrays, in two batches, the second padded with rows of nonsense."""

    def __init__(self, **splits):
        self.splits = splits

    def eval(self, split, limit=None):
        """Batches; without labels if the split has none."""
        features, labels = (None if a is None else a[:limit] for a in self.splits[split])
        half = len(features) // 2
        padded = np.concatenate([features[half:], np.full((3, features.shape[1]), 1e3)])
        real = np.arange(len(padded)) < len(features) - half
        batches = [
            {"image": features[:half], "valid": np.ones(half, bool)},
            {"image": padded, "valid": real},
        ]
        if labels is not None:
            batches[0]["label"] = labels[:half]
            batches[1]["label"] = np.concatenate([labels[half:], [0, 0, 0]])
        yield from batches


def predict(batch):
    """The images are their own features, in bfloat16 as an encoder may return them."""
    return {**batch, "features": jnp.asarray(batch["image"], jnp.bfloat16)}


def test_extract_drops_padded_rows():
    features, labels = examples(21, 1, seed=0)
    found = extract(predict, Splits(test=(features, labels)), "test")
    assert found.features.dtype == np.float32
    np.testing.assert_array_equal(found.features, np.asarray(jnp.asarray(features, jnp.bfloat16)))
    np.testing.assert_array_equal(found.labels, labels)


def test_extract_takes_no_more_than_the_limit():
    splits = Splits(test=examples(21, 1, seed=0))
    assert len(extract(predict, splits, "test", 8).labels) == 8
    assert len(extract(predict, splits, "test").labels) == 21


def test_features_are_extracted_once_for_several_evaluators():
    calls = []
    counted = lambda batch: calls.append(1) or predict(batch)
    splits = Splits(train=examples(40, 1, seed=0), test=examples(20, 1, seed=1))
    for _ in range(2):
        for split in ("train", "test"):
            extract(counted, splits, split)
    assert len(calls) == 4, "two batches of two splits"


def test_evaluator_standardizes_with_the_training_set():
    """Scales and offsets of the features do not matter; those of the test set are not used."""
    train, test = examples(400, 1, seed=0), examples(201, 1, seed=1)
    scales, offsets = np.geomspace(1e-2, 1e2, WIDTH), np.linspace(-3, 3, WIDTH)
    stretched = [
        ((features * scales + offsets * scales).astype(np.float32), labels)
        for features, labels in (train, test)
    ]
    full = lambda batch: {**batch, "features": batch["image"]}
    for limit in (None, 100):
        metrics = logistic.make(l2=1e-2, limit=limit)(
            full, Splits(train=stretched[0], test=stretched[1])
        )
        features, labels = train[0][:limit].astype(np.float64), train[1][:limit]
        mean, std = features.mean(axis=0), features.std(axis=0)
        exact = LogisticRegression(C=1 / (1e-2 * len(labels)), tol=1e-8, max_iter=1000)
        exact.fit((features - mean) / std, labels)
        expected = exact.score((test[0] - mean) / std, test[1])
        assert metrics == {"logistic": pytest.approx(expected, abs=0.006)}


@pytest.mark.parametrize("l2", [0, -1.0, (), (1e-3, 0)])
def test_penalties_must_be_positive(l2):
    with pytest.raises(UserError, match="penalties must be positive"):
        logistic.make(l2=l2)
