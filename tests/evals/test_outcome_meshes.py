"""Metrics of classes, several classes, ordered classes and numbers on 1, 2 and 8 devices: equal to
each other, and to scikit-learn's, with random, tied and degenerate labels and predictions.
"""

import json
import sys
import warnings

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn import metrics as sk

from mae_jax.evals import classes, multilabel, ordered, regression
from tests.evals.test_outcomes import CLOSE
from tests.helpers.forkserver import Child
from tests.helpers.jobs import environment

KINDS = ("random", "tied", "degenerate")
MESHES = [(1, 1, 101), (1, 1, 8), (2, 1, 16), (2, 2, 34), (8, 1, 64), (8, 2, 24)]
"""(devices, of which hold the model, batch size): 101 examples fill the last batch of the first."""
UNIT = 16.0


def examples(kind):
    """Images [101, 12], the weights [12, 5] of all predictions, and the fields of labels."""
    rng = np.random.default_rng(KINDS.index(kind))
    images = rng.integers(0, 256, (101, 12)).astype(np.float32)
    weights = rng.integers(-3, 4, (12, 5)).astype(np.float32) / 64  # exact in any order
    noisy = predictions(images, weights, kind) + 4 * rng.normal(size=(101, 5))
    labels = (noisy > np.median(noisy, axis=0)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.2] = 255
    fields = {
        "label": noisy.argmax(axis=1).astype(np.int32),
        "labels": labels,
        "value": noisy[:, :2].astype(np.float32),
        "group": rng.integers(0, 20, 101).astype(np.int32),
    }
    if kind == "degenerate":
        fields["label"] = np.minimum(fields["label"], 3)
        labels[:, 0], labels[:, 1] = 1, 255
        fields["value"][:, 1] = 0.1
    return images, weights, fields


def predictions(images, weights, kind):
    """[101, 5]: logits or numbers."""
    raw = images @ weights
    return raw if kind == "random" else raw // UNIT


def measure(kind, count, fsdp, size):
    """The metrics of all evaluators on a mesh."""
    import jax
    from jax.sharding import AxisType

    from mae_jax.engine.mesh import put_batch, replicated
    from mae_jax.evals.features import shared
    from tests.evals.test_outcomes import Split

    images, weights, fields = examples(kind)
    mesh = jax.make_mesh(
        (count // fsdp, fsdp),
        ("data", "fsdp"),
        (AxisType.Auto,) * 2,
        devices=jax.devices()[:count],
    )

    def predict(batch):
        found = predictions(batch.pop("image"), weights, kind)
        outputs = {"logits": found, "multilabel_logits": found, "prediction": found[:, :2]}
        return {**batch, **outputs}

    function = jax.jit(predict, out_shardings=replicated(mesh))
    found = {}
    for one in (classes, multilabel, ordered, regression):
        evaluator = one.make(bootstrap=5)
        whole = shared(lambda batch: function(put_batch(batch, mesh)), [evaluator])
        metrics = evaluator(whole, Split(size, image=images, **fields))
        found |= {f"{evaluator.name}: {metric}": value for metric, value in metrics.items()}
    return found


def expected(kind):
    """The means of the metrics over what is defined, by scikit-learn."""
    images, weights, fields = examples(kind)
    logits = predictions(images, weights, kind).astype(np.float64)
    label, guess, every = fields["label"], logits.argmax(axis=1), np.arange(5)
    chance = scipy.special.softmax(logits, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted, and no label
        found = {"classes: balanced_accuracy": sk.balanced_accuracy_score(label, guess)}
    f1 = sk.f1_score(label, guess, average=None, labels=every, zero_division=np.nan)
    aurocs = [sk.roc_auc_score(label == k, chance[:, k]) for k in every if (label == k).any()]
    found |= {"classes: f1": np.nanmean(f1), "classes: auroc": np.mean(aurocs)}
    each = {"auroc": [], "average_precision": [], "f1": []}
    for k in every:
        known = fields["labels"][:, k] != 255
        true, score = fields["labels"][known, k], logits[known, k]
        if len({*true.tolist()}) == 2:
            each["auroc"].append(sk.roc_auc_score(true, score))
        if true.any():
            each["average_precision"].append(sk.average_precision_score(true, score))
            each["f1"].append(sk.f1_score(true, score >= 0))
    found |= {f"multilabel: {metric}": np.mean(values) for metric, values in each.items()}
    kappa = sk.cohen_kappa_score(label, guess, weights="quadratic", labels=every)
    found |= {
        "ordered: kappa": kappa,  # of places in the order, also if a class between is nowhere
        "ordered: class_mae": sk.mean_absolute_error(label, guess),
        "ordered: accuracy": sk.accuracy_score(label, guess),
    }
    true, guess = fields["value"].astype(np.float64), logits[:, :2]
    some = [v for v in (0, 1) if np.ptp(true[:, v])]
    found |= {
        "regression: r2": np.mean([sk.r2_score(true[:, v], guess[:, v]) for v in some]),
        "regression: mae": sk.mean_absolute_error(true, guess),
        "regression: rmse": sk.root_mean_squared_error(true, guess),
        "regression: spearman": np.mean(
            [scipy.stats.spearmanr(true[:, v], guess[:, v]).statistic for v in some]
        ),
    }
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_the_metrics_are_those_of_scikit_learn_on_any_number_of_devices(kind):
    child = Child("tests.evals.test_outcome_meshes", kind, env=environment(devices=8))
    out, error = child.communicate()
    assert child.returncode == 0, error
    first, *others = [json.loads(line) for line in out.splitlines()]
    assert len(others) == len(MESHES) - 1 and all(other == first for other in others)
    assert {"classes: auroc_low", "regression: r2_high", "multilabel: f1/4"} <= first.keys()
    for metric, value in expected(kind).items():
        assert first[metric] == CLOSE(value), metric
    assert ("multilabel: auroc/0" in first) == (kind != "degenerate")


if __name__ == "__main__":
    for mesh in MESHES:
        print(json.dumps(measure(sys.argv[1], *mesh)))
