"""The confusion matrix and the calibration curve of a classifier, as they are drawn."""

import types

import numpy as np
import pytest

from mae_jax.evals.classes import softmax
from mae_jax.evals.classify import calibration_error
from mae_jax.figures import calibration, confusion

LABELS = np.array([0, 0, 0, 1, 1, 2])
LOGITS = np.float32([[2, 0, 1], [0, 1, 0], [3, 0, 0], [0, 4, 0], [0, 5, 0], [1, 0, 0]])


def context(logits, labels, names=()):
    """A figure's inputs, in batches of four of which the last is padded."""

    def batches(split, limit=None):
        for start in range(0, len(labels), 4):
            rows = np.minimum(np.arange(start, start + 4), len(labels) - 1)
            valid = np.arange(start, start + 4) < len(labels)
            yield {"logits": logits[rows], "label": labels[rows], "valid": valid}

    source = types.SimpleNamespace(names={"label": names} if names else {})
    data = types.SimpleNamespace(eval=batches, source=lambda split: source)
    return types.SimpleNamespace(
        split="test", data=data, predict=lambda outputs: lambda batch: batch
    )


def test_shares_of_each_true_class():
    figure = confusion.drawn(context(LOGITS, LABELS, ("cat", "dog", "cow")))
    axis = figure.axes[0]
    drawn = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axis.texts}
    assert drawn == {(0, 0): "67", (0, 1): "33", (1, 1): "100", (2, 0): "100"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["cat", "dog", "cow"]
    many = np.eye(50, dtype=np.float32)
    assert not confusion.drawn(context(many, np.arange(50))).axes[0].texts


def test_bins_are_those_of_the_calibration_error():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    probabilities = softmax(rng.normal(size=(300, 4)) + np.eye(4)[labels])
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    mean, accuracy, counts = calibration.curve(confidence, correct)
    error = np.nansum(counts / 300 * np.abs(accuracy - mean))
    assert error == pytest.approx(calibration_error(confidence, correct), rel=1e-12)
    assert counts.sum() == 300 and np.isnan(mean[counts == 0]).all() and (counts == 0).any()
    axis = calibration.drawn(context(LOGITS, LABELS)).axes[0]
    assert [line.get_label() for line in axis.lines] == ["perfect calibration", "model"]


def test_methods_without_classes_have_neither():
    method = lambda outputs, fields: types.SimpleNamespace(
        offers=lambda: outputs, labels=lambda: fields
    )
    for figure in (confusion.make(), calibration.make()):
        assert figure.check(method(("logits",), {"label": 3})) is None
        assert "one class per image" in figure.check(method(("multilabel_logits",), {"labels": 3}))
