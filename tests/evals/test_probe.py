"""Selection among the heads of a linear probe, by the criterion of each objective."""

import logging
import types

import numpy as np
import pytest
from sklearn import metrics as sk

from mae_jax.evals import probe
from mae_jax.evals.features import shared
from mae_jax.objectives import make_objective
from mae_jax.settings import make_evaluators
from mae_jax.tasks import linear_probe
from mae_jax.types import UserError

RNG = np.random.default_rng(0)
LABELS = {
    "classes": RNG.integers(0, 4, 60).astype(np.int32),
    "ordered": RNG.integers(0, 4, 60).astype(np.int32),
    "multilabel": RNG.integers(0, 2, (60, 4)).astype(np.uint8),
    "regression": RNG.normal(size=(60, 4)).astype(np.float32),
}
"""Objective -> labels of 30 held-out and 30 test images."""
EXPECTED = {
    "classes": lambda true, x: sk.accuracy_score(true, x.argmax(axis=1)),
    "ordered": lambda true, x: sk.mean_absolute_error(true, x.argmax(axis=1)),
    "multilabel": lambda true, x: sk.average_precision_score(true, x, average="macro"),
    "regression": sk.r2_score,
}


class Splits:
    """The splits 'val' and 'test', in batches of 8; the last one is padded."""

    def __init__(self, field, labels, output, predictions):
        self.field, self.labels, self.output, self.predictions = field, labels, output, predictions

    def eval(self, split, limit=None, then=""):
        """Batches with the predictions."""
        rows = np.arange(30) + 30 * (split == "test")
        for start in range(0, 30, 8):
            some = np.pad(rows[start : start + 8], (0, max(0, start + 8 - 30)), mode="edge")
            batch = {self.field: self.labels[some], self.output: self.predictions[some]}
            yield {**batch, "valid": np.arange(start, start + 8) < 30}

    def source(self, split):
        """Without names."""
        return types.SimpleNamespace(names={})


def selected(kind, predictions, labels=None):
    """The result of the evaluator for predictions [60, heads, 4]."""
    task = linear_probe.make(
        encoder="vit(width=16, depth=1, heads=2, patch=4)",
        objective=kind,
        classes=4,
        lr_factors=(0.1, 1.0, 10.0),
    )
    (evaluator,) = make_evaluators("probe", task)
    (output,), field = evaluator.outputs, task.objective.field
    assert output in task.offers() and evaluator.needs == {"val": (field,), "test": (field,)}
    labels = LABELS[kind] if labels is None else labels
    data = Splits(field, labels, output, predictions.astype(np.float32))
    return evaluator(shared(lambda batch: batch, [evaluator]), data), evaluator


def predictions_of(kind):
    """Three heads, the second of which is the best on the held-out images."""
    labels = LABELS[kind]
    true = np.eye(4)[labels] if labels.ndim == 1 else labels.astype(np.float64)
    noise = np.stack([1.5, 0.3, 0.9])[:, None] * RNG.normal(size=(60, 3, 4))
    return (true[:, None] + noise).astype(np.float32)


@pytest.mark.parametrize("kind", LABELS)
def test_the_best_head_on_held_out_images_is_reported(kind):
    predictions = predictions_of(kind)
    true = LABELS[kind].astype(np.float64 if kind == "regression" else int)
    scores = predictions.astype(np.float64)
    found, evaluator = selected(kind, predictions)
    value = lambda rows, head: EXPECTED[kind](true[rows], scores[rows, head])
    val = [value(slice(30), head) for head in range(3)]
    best = int(np.argmin(val) if kind == "ordered" else np.argmax(val))
    assert best == 1 and found["head"] == 1
    assert found["val"] == pytest.approx(val[1], abs=1e-12)
    assert found["probe"] == pytest.approx(value(slice(30, 60), 1), abs=1e-12)
    assert evaluator.metrics["probe"].lower_is_better == (kind == "ordered")
    assert evaluator.metrics["probe"].unit == (
        "%" if kind in ("classes", "multilabel") else "classes" if kind == "ordered" else ""
    )


def test_a_head_that_has_diverged_is_never_selected():
    predictions = predictions_of("regression")
    predictions[3, 1] = np.nan
    found, _ = selected("regression", predictions)
    assert found["head"] == 2
    predictions[3] = np.nan
    with pytest.raises(UserError, match="r2 is undefined for all heads .* hold out more, or lower"):
        selected("regression", predictions)


def test_what_is_undefined_on_the_test_images_is_left_out(caplog):
    labels = LABELS["multilabel"].copy()
    labels[30:] = 0
    with caplog.at_level(logging.WARNING):
        found, _ = selected("multilabel", predictions_of("multilabel"), labels)
    assert found.keys() == {"val", "head"}
    assert "average_precision is undefined on the test images" in caplog.text


def test_every_objective_names_a_metric_of_an_evaluator():
    for kind in LABELS:
        objective = make_objective(kind, 4)
        evaluator = probe.selecting(*objective.criterion)
        assert evaluator.outputs == (f"head_{objective.output}",)
        assert evaluator.needs["test"] == (objective.field,)
    assert probe.make().outputs == ("head_logits",)
