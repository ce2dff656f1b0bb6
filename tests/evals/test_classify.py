"""Accuracy, likelihood and calibration against scikit-learn, however the examples are batched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from mae_jax.evals import classify
from mae_jax.types import UserError


class Batches:
    """A test split of logits and labels; its batches all have the same size, and what fills the
    last one is certain of a label that no classifier has.
    """

    def __init__(self, logits, labels, size):
        self.logits, self.labels, self.size = logits, labels, size
        self.asked = []

    def eval(self, split, limit=None, then=""):
        """Batches with 'image' [size, classes], the logits themselves."""
        self.asked.append((split, limit))
        count = len(self.labels[:limit])
        fill = -count % self.size
        sure = np.eye(1, self.logits.shape[1], dtype=np.float32).repeat(fill, axis=0) * 1e4
        images = np.concatenate([self.logits[:count], sure])
        labels = np.concatenate([self.labels[:count], np.full(fill, 999)])
        for start in range(0, len(labels), self.size):
            rows = slice(start, start + self.size)
            mask = np.arange(len(labels))[rows] < count
            yield {"image": images[rows], "label": labels[rows], "valid": mask}


def predict(batch):
    """The images are the logits."""
    return {"logits": jnp.asarray(batch["image"]), "label": batch["label"], "valid": batch["valid"]}


def examples(count, classes, *, seed=0, scale=2.0):
    """Logits [count, classes] float32 that know something of the labels [count]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + np.eye(classes)[labels]
    return (scale * logits).astype(np.float32), labels


def softmax(logits):
    """Probabilities [N, classes] in float64."""
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def calibration_by_bins(probabilities, labels):
    """Equation 3 of Guo et al. 2017 as it is written, bin by bin."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            error += inside.sum() / len(labels) * gap
    return error


@pytest.mark.parametrize(("classes", "scale"), [(2, 2.0), (5, 0.5), (6, 1.0), (37, 2.0), (37, 4.0)])
def test_equal_to_scikit_learn(classes, scale):
    logits, labels = examples(503, classes, scale=scale)
    found = classify.make()(predict, Batches(logits, labels, 64))
    probabilities, every = softmax(logits), range(classes)
    assert found["nll"] == pytest.approx(log_loss(labels, probabilities, labels=every), rel=1e-12)
    assert found["ece"] == pytest.approx(calibration_by_bins(probabilities, labels), rel=1e-9)
    assert found["top1"] == np.mean(logits.argmax(axis=1) == labels)
    if classes > 5:
        assert found["top5"] == top_k_accuracy_score(labels, logits, k=5, labels=every)
        assert found["top1"] == top_k_accuracy_score(labels, logits, k=1, labels=every)
        assert found["top1"] < found["top5"] < 1
    names = ["top1", "top5", "nll", "ece"] if classes > 5 else ["top1", "nll", "ece"]
    assert list(found) == names
    assert all(type(value) is float for value in found.values())


def test_the_same_numbers_for_any_batch_size_and_padding():
    logits, labels = examples(1009, 11)
    whole = classify.make()(predict, Batches(logits, labels, 1009))
    for size in [1, 2, 1008, 1010, *np.random.default_rng(1).integers(3, 1500, 20)]:
        assert classify.make()(predict, Batches(logits, labels, int(size))) == whole, size


def test_splits_and_limits():
    logits, labels = examples(100, 7)
    data = Batches(logits, labels, 32)
    some = classify.make(split="val", limit=40)(predict, data)
    assert data.asked == [("val", 40)]
    assert some == classify.make()(predict, Batches(logits[:40], labels[:40], 40))


def test_equal_logits_stand_in_the_order_of_the_classes():
    """A constant classifier is right by chance: for one class in ten, or five, never for all."""
    ranks = classify.score(np.zeros((10, 10), np.float32), np.arange(10)).rank
    np.testing.assert_array_equal(ranks, np.arange(10))
    rounded = np.round(np.random.default_rng(0).normal(size=(500, 20)))
    labels = np.random.default_rng(1).integers(0, 20, 500)
    order = np.argsort(-rounded, axis=1, kind="stable")
    expected = np.argmax(order == labels[:, None], axis=1)
    np.testing.assert_array_equal(classify.score(rounded, labels).rank, expected)
    np.testing.assert_array_equal(expected == 0, rounded.argmax(axis=1) == labels)


def test_logits_that_are_no_numbers_are_never_right():
    logits = np.full((3, 8), np.nan, np.float32)
    found = classify.make()(predict, Batches(logits, np.arange(3), 3))
    assert found["top1"] == found["top5"] == 0 and np.isnan([found["nll"], found["ece"]]).all()


def test_large_logits_do_not_overflow():
    logits = np.array([[1e4, 0, -1e4], [1e30, 1e30, 0]], np.float32)
    scores = classify.score(logits, np.array([1, 1]))
    np.testing.assert_allclose(scores.nll, [1e4, np.log(2)])
    np.testing.assert_allclose(scores.confidence, [1, 0.5])


def test_calibration_errors_by_hand():
    right = np.array([True] * 3 + [False])
    assert classify.calibration_error(np.full(4, 0.75), right) == 0
    assert classify.calibration_error(np.full(4, 1.0), right) == 0.25
    # A bin holds its upper end: 0.2 stands with 0.15, not with 0.25, and 0.2 + 0.15 is too little
    # by 0.65 where 0.25 is too much by 0.25.
    confidence, correct = np.array([0.15, 0.2, 0.25]), np.array([True, False, False])
    assert classify.calibration_error(confidence, correct) == pytest.approx((0.65 + 0.25) / 3)


@pytest.mark.parametrize("label", [7, -1])
def test_labels_outside_the_classes(label):
    logits, labels = examples(10, 7)
    labels[4] = label
    message = f"label {label} of the test split is none of the 7 classes of the classifier, 0 to 6"
    with pytest.raises(UserError, match=f"{message}: check config.method.args.classes"):
        classify.make()(predict, Batches(logits, labels, 4))


def test_no_example_that_can_be_read():
    data = Batches(*examples(10, 7), 4)
    unreadable = lambda batch: {**predict(batch), "valid": np.zeros(len(batch["valid"]), bool)}
    with pytest.raises(UserError, match="the test split has no example that can be read"):
        classify.make()(unreadable, data)


ON_MESHES = """
import json, jax, numpy as np
from jax.sharding import AxisType
from mae_jax.engine.mesh import put_batch, replicated
from mae_jax.evals import classify
from tests.evals.test_classify import Batches

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (101, 12)).astype(np.float32)
weights = rng.integers(-3, 4, (12, 9)).astype(np.float32) / 64  # exact in any order
labels = (images @ weights + 16 * rng.normal(size=(101, 9))).argmax(axis=1)
for count, fsdp, size in [(1, 1, 101), (1, 1, 8), (2, 1, 16), (2, 2, 34), (8, 1, 64), (8, 2, 24)]:
    mesh = jax.make_mesh((count // fsdp, fsdp), ("data", "fsdp"), (AxisType.Auto,) * 2,
                         devices=jax.devices()[:count])
    function = jax.jit(lambda batch: {**batch, "logits": batch["image"] @ weights},
                       out_shardings=replicated(mesh))
    predict = lambda batch: function(put_batch(batch, mesh))
    print(json.dumps(classify.make()(predict, Batches(images, labels, size))))
"""


def test_the_same_numbers_on_any_number_of_devices():
    """On 1, 2 and 8 devices; 101 images fill the last batch only where it is the only one."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false",
    }
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", ON_MESHES]
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, check=True)
    first, *others = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(others) == 5 and all(other == first for other in others), (first, others)
    assert 0.2 < first["top1"] < first["top5"] < 1
