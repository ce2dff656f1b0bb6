"""Features that are wider than there are examples give the same models in fewer numbers."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from mae_jax.evals import logistic, ridge
from mae_jax.evals.span import basis_of, narrowed
from tests.evals.test_knn import clusters


def test_products_with_training_examples_stay_as_they_are():
    """Also of examples that depend on each other, as all do that are centered."""
    (train, _), (test, _) = clusters(20, width=50), clusters(7, width=50, seed=1)
    train -= train.mean(axis=0)
    basis = basis_of(train)
    np.testing.assert_allclose(basis.T @ basis, np.eye(20), atol=1e-5)
    few, others = narrowed(train, test)
    assert few.shape == (20, 20) and others.shape == (7, 20)
    np.testing.assert_allclose(few @ few.T, train @ train.T, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(others @ few.T, test @ train.T, rtol=1e-4, atol=1e-2)
    assert narrowed(train[:, :20], test)[1] is test


def test_predictions_are_those_of_all_numbers():
    (train, labels), (test, _) = clusters(40, width=60), clusters(30, width=60, seed=1)
    few, others = narrowed(train, test)
    found = logistic.fit(few, labels, l2=0.1, tolerance=1e-10)
    exact = LogisticRegression(C=1 / (0.1 * 40), solver="newton-cg", tol=1e-9, max_iter=1000)
    exact.fit(train.astype(np.float64), labels)
    logits = others @ np.asarray(found.weights) + np.asarray(found.bias)
    expected = exact.decision_function(test)
    center = lambda x: x - x.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(center(logits), center(expected), atol=0.02)

    wide, narrow = (ridge.fit(x, labels, 0.1) for x in (train, few))
    for one, two in [(train, few), (test, others)]:
        expected = one.astype(np.float64) @ wide.weights + wide.bias
        np.testing.assert_allclose(two @ narrow.weights + narrow.bias, expected, atol=1e-3)
