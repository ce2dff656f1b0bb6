"""Metrics of classes, several classes, ordered classes and numbers against scikit-learn, also with
ties, with weights, without some class, and however the examples are batched.
"""

import functools
import logging
import types
import warnings

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn import metrics as sk

from mae_jax.engine.mesh import batch_sharding, make_mesh, put_batch
from mae_jax.evals import agreement, classes, measured, multilabel, ordered, ranking, regression
from mae_jax.evals.features import shared
from mae_jax.types import UserError

CLOSE = functools.partial(pytest.approx, rel=1e-12, abs=1e-12)


class Split:
    """A test split with any fields; the last batch is padded with values that no label has."""

    def __init__(self, size, names=None, **fields):
        self.fields, self.size, self.names = fields, size, names or {}

    def eval(self, split, limit=None, then=""):
        """Batches of `size` rows."""
        count = len(next(iter(self.fields.values()))[:limit])
        for start in range(0, count, self.size):
            rows = np.arange(start, start + self.size)
            valid = rows < count
            batch = {k: v[np.minimum(rows, count - 1)].copy() for k, v in self.fields.items()}
            for values in batch.values():
                values[~valid] = 77
            yield {**batch, "valid": valid}

    def source(self, split):
        """Names of the classes."""
        return types.SimpleNamespace(names=self.names)


def results(evaluator, *, size=64, names=None, **fields):
    """What an evaluator says of outputs and labels."""
    predict = shared(lambda batch: batch, [evaluator])
    return evaluator(predict, Split(size, names, **fields))


def weights_of(count, seed):
    """Numbers of repetitions, some of them 0."""
    return np.random.default_rng(seed).integers(0, 4, count).astype(np.float64)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [2, 5, None])
def test_rankings_are_those_of_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    positive, scores = rng.random(203) < 0.3, rng.normal(size=203)
    scores += positive
    if levels:
        scores = np.round(np.clip(scores, -1, 1) * (levels - 1) / 2)
    found = ranking.Ranking(positive, scores)
    for weights in (np.ones(203), weights_of(203, seed)):
        auroc = sk.roc_auc_score(positive, scores, sample_weight=weights)
        assert found.auroc(weights) == CLOSE(auroc)
        precision = sk.average_precision_score(positive, scores, sample_weight=weights)
        assert found.average_precision(weights) == CLOSE(precision)


def test_rankings_without_a_class_or_an_example_are_undefined():
    for count in (0, 3):
        for positive in (np.ones(count, bool), np.zeros(count, bool)):
            found = ranking.Ranking(positive, np.arange(count))
            assert np.isnan(found.auroc(np.ones(count)))
            expected = 1.0 if count and positive.all() else np.nan
            assert found.average_precision(np.ones(count)) == pytest.approx(expected, nan_ok=True)
    assert np.isnan(ranking.Ranking(np.arange(4) < 2, np.arange(4)).auroc(np.zeros(4)))


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("missing", [False, True])
def test_classes(count, missing, caplog):
    rng = np.random.default_rng(count)
    labels = rng.integers(0, count - missing, 301).astype(np.int32)
    logits = (rng.normal(size=(301, count)) + 2 * np.eye(count)[labels]).astype(np.float32)
    logits = np.round(logits)  # ties
    names = {"label": tuple(f"c/{k}" for k in range(count))}
    with caplog.at_level(logging.WARNING):
        found = results(classes.make(), logits=logits, label=labels, names=names)
    predicted, every = logits.argmax(axis=1), np.arange(count)
    probabilities = scipy.special.softmax(logits.astype(float), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["balanced_accuracy"] == CLOSE(sk.balanced_accuracy_score(labels, predicted))
        f1 = sk.f1_score(labels, predicted, average=None, labels=every, zero_division=np.nan)
    assert found["f1"] == CLOSE(np.nanmean(f1))
    some = [k for k in every if 0 < (labels == k).sum() < 301]
    aurocs = {k: sk.roc_auc_score(labels == k, probabilities[:, k]) for k in some}
    if count == 2:
        aurocs.pop(0, None)
        aurocs = {} if missing else aurocs
    if aurocs:
        assert found["auroc"] == CLOSE(np.mean([*aurocs.values()]))
    else:
        assert "auroc" not in found
    assert {k for k in every if f"auroc/c/{k}" in found} == {*aurocs}
    recalls = sk.recall_score(labels, predicted, average=None, labels=every, zero_division=np.nan)
    shown = [found.get(f"recall/c/{k}", np.nan) for k in every]
    np.testing.assert_allclose(shown, recalls, rtol=1e-12)
    assert missing == ("undefined on these labels and left out" in caplog.text)


def test_several_classes_of_which_some_are_unknown(caplog):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (203, 5)).astype(np.uint8)
    logits = np.round(rng.normal(size=(203, 5)) + labels, 1).astype(np.float32)
    labels[rng.random(labels.shape) < 0.3] = 255
    labels[:, 3] = np.where(labels[:, 3] == 255, 255, 1)  # all that are known have it
    labels[:, 4] = 255
    with caplog.at_level(logging.WARNING):
        found = results(multilabel.make(), multilabel_logits=logits, labels=labels)
    each = {"auroc": [], "average_precision": [], "f1": []}
    for k in range(4):
        rows = labels[:, k] != 255
        true, score = labels[rows, k], logits[rows, k]
        if k < 3:
            each["auroc"].append(sk.roc_auc_score(true, score))
        each["average_precision"].append(sk.average_precision_score(true, score))
        each["f1"].append(sk.f1_score(true, 1 / (1 + np.exp(-score.astype(float))) >= 0.5))
    for metric, values in each.items():
        assert found[metric] == CLOSE(np.mean(values)), metric
        shown = [found[f"{metric}/{k}"] for k in range(len(values))]
        np.testing.assert_allclose(shown, values, rtol=1e-12)
    assert "auroc/3, auroc/4, average_precision/4, f1/4 " in caplog.text
    assert not {"auroc/3", "f1/4"} & {*found}


@pytest.mark.parametrize("count", [2, 5])
def test_ordered_classes(count):
    rng = np.random.default_rng(count)
    labels = rng.integers(0, count, 203).astype(np.int32)
    logits = (rng.normal(size=(203, count)) + np.eye(count)[labels]).astype(np.float32)
    found = results(ordered.make(), logits=logits, label=labels)
    predicted = logits.argmax(axis=1)
    assert found["kappa"] == CLOSE(sk.cohen_kappa_score(labels, predicted, weights="quadratic"))
    assert found["class_mae"] == CLOSE(sk.mean_absolute_error(labels, predicted))
    assert found["accuracy"] == CLOSE(sk.accuracy_score(labels, predicted))
    weights = weights_of(203, 1)
    again = ordered.measure_of(logits, labels, [])(weights)
    kappa = sk.cohen_kappa_score(labels, predicted, weights="quadratic", sample_weight=weights)
    assert again["kappa"] == CLOSE(kappa)
    matrix = sk.confusion_matrix(labels, predicted, sample_weight=weights)
    np.testing.assert_array_equal(agreement.confusion(labels, predicted, weights, count), matrix)
    sure = np.eye(1, count).repeat(4, axis=0)  # all are of the first class, and predicted so
    one = results(ordered.make(), logits=sure, label=np.zeros(4, np.int32))
    assert one == {"class_mae": 0, "accuracy": 1}


@pytest.mark.parametrize("values", [1, 3])
def test_numbers(values):
    rng = np.random.default_rng(values)
    true = np.round(rng.normal(3, 2, (203, values)), 1).astype(np.float32)
    predicted = np.round(true + rng.normal(size=true.shape), 1).astype(np.float32)
    label = true[:, 0] if values == 1 else true
    found = results(regression.make(), prediction=predicted, value=label)
    a, b = true.astype(float), predicted.astype(float)
    assert found["r2"] == CLOSE(sk.r2_score(a, b))
    assert found["mae"] == CLOSE(sk.mean_absolute_error(a, b))
    assert found["rmse"] == CLOSE(sk.root_mean_squared_error(a, b))
    each = [scipy.stats.spearmanr(a[:, v], b[:, v]).statistic for v in range(values)]
    assert found["spearman"] == CLOSE(np.mean(each))
    assert ("r2/2" in found) == (values == 3)
    weights = weights_of(203, 0)
    weighted = regression.measure_of(predicted, label, "xyz")(weights)
    assert weighted["r2"] == CLOSE(sk.r2_score(a, b, sample_weight=weights))
    rmse = sk.root_mean_squared_error(a, b, sample_weight=weights)
    assert weighted["rmse"] == CLOSE(rmse)
    times = weights.astype(int)
    each = [
        scipy.stats.spearmanr(a[:, v].repeat(times), b[:, v].repeat(times)) for v in range(values)
    ]
    assert weighted["spearman"] == CLOSE(np.mean([one.statistic for one in each]))


def test_equal_numbers_have_no_variance_to_explain():
    value = np.full(30, 0.1, np.float32)
    found = results(regression.make(bootstrap=5), prediction=value[:, None] + 1, value=value)
    assert found.keys() == {"mae", "rmse"} | {
        f"{m}_{e}" for m in ("mae", "rmse") for e in ("low", "high")
    }
    assert found["mae"] == pytest.approx(1)


def labeled(count=90, *, seed=0):
    """Logits, labels and groups of three examples each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    logits = (rng.normal(size=(count, 3)) + np.eye(3)[labels]).astype(np.float32)
    return dict(
        logits=logits, label=labels, group=np.repeat(np.arange(count // 3), 3).astype(np.int32)
    )


def test_intervals_are_quantiles_of_metrics_of_drawn_groups():
    fields = labeled()
    found = results(ordered.make(bootstrap=40, seed=5), **fields)
    rng, drawn = np.random.default_rng(5), []
    predicted = fields["logits"].argmax(axis=1)
    for _ in range(40):
        rows = np.concatenate([np.arange(3 * g, 3 * g + 3) for g in rng.integers(0, 30, 30)])
        pair = fields["label"][rows], predicted[rows]
        drawn.append((sk.cohen_kappa_score(*pair, weights="quadratic"), sk.accuracy_score(*pair)))
    for name, column in zip(("kappa", "accuracy"), np.transpose(drawn), strict=True):
        low, high = np.quantile(column, (0.025, 0.975))
        assert (found[f"{name}_low"], found[f"{name}_high"]) == (CLOSE(low), CLOSE(high))
        assert low < found[name] < high
    without = {k: v for k, v in fields.items() if k != "group"}
    alone = results(ordered.make(bootstrap=40, seed=5), **without)
    assert alone["kappa"] == found["kappa"] and alone["kappa_low"] != found["kappa_low"]


def test_the_same_numbers_for_any_batch_size_and_on_two_devices():
    fields, evaluator = labeled(), classes.make(bootstrap=10)
    expected = results(evaluator, size=90, **fields)
    for size in (1, 7, 64, 91):
        assert results(evaluator, size=size, **fields) == expected
    mesh = make_mesh(data=2)
    predict = shared(lambda batch: put_batch(batch, mesh), [evaluator])
    batch = predict({"label": fields["label"][:4]})
    assert batch["label"].sharding == batch_sharding(mesh)
    assert evaluator(predict, Split(8, **fields)) == expected


@pytest.mark.parametrize(
    ("evaluator", "fields", "message"),
    [
        (lambda: classes.make(limit=0), {}, "limit=0 must be at least 1"),
        (lambda: classes.make(bootstrap=-1), {}, "bootstrap=-1 and seed=0 must be at least 0"),
        (classes.make, labeled() | dict(label=np.full(90, 3, np.int32)), "none of the 3 classes"),
        (classes.make, labeled() | dict(logits=np.full((90, 3), np.nan)), "the model predicts NaN"),
        (
            multilabel.make,
            dict(multilabel_logits=np.zeros((4, 2)), labels=np.zeros((4, 3), np.uint8)),
            r"'labels' has the shape \[3\] for each example of the test split, .* predicts 2",
        ),
        (
            multilabel.make,
            dict(multilabel_logits=np.zeros((4, 2)), labels=np.full((4, 2), 2, np.uint8)),
            r"labels 2 of the test split is not 1, 0 or 255 \(unknown\)",
        ),
        (
            regression.make,
            dict(prediction=np.zeros((2, 1)), value=np.float32([1, np.inf])),
            "value inf of the test split is not a finite number",
        ),
    ],
)
def test_refusals(evaluator, fields, message):
    with pytest.raises(UserError, match=message) as error:
        results(evaluator(), **fields)
    assert "\n" not in str(error.value)


def test_declared_metrics():
    evaluator = regression.make(bootstrap=10)
    assert {"r2_low", "r2_high", "spearman_low"} <= {*evaluator.metrics}
    assert evaluator.metrics["mae_low"].lower_is_better and evaluator.metrics["r2"].table == "main"
    assert "r2_low" not in regression.make().metrics
    assert measured.LEVEL == 0.95
