"""Errors of a made-up classifier, which is wrong about known rows of known corruptions."""

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data.transforms.corruption import KINDS
from mae_jax.evals import robustness
from mae_jax.types import UserError

NAMES = tuple(kind.name for kind in KINDS)
ROWS, CLASSES = 20, 1000


class Corrupted:
    """Test data of two padded batches, in which so many of the 20 rows are hard to classify.

    Args:
        hard: spec string of the transform -> how many rows.
    """

    def __init__(self, hard):
        self.hard, self.calls = hard, []

    def eval(self, split, limit=None, then=""):
        """Batches; labels count up, rows that fill the second batch are all hard."""
        assert split == "test"
        self.calls.append((limit, then))
        hard = np.arange(24) < self.hard(then)
        hard[ROWS:] = True
        for rows in (np.arange(0, 12), np.arange(12, 24)):
            yield {"image": hard[rows], "label": rows.astype(np.int32), "valid": rows < ROWS}


def predict(batch):
    """The label itself, or the class after it for a hard row."""
    shown = batch["label"] + batch["image"]
    logits = np.eye(CLASSES, dtype=np.float32)[shown] * 5 - 2
    return {"logits": logits, "label": batch["label"], "valid": batch["valid"]}


def hard_by_severity(then):
    """One without corruption; else twice the severity, and some more by the kind's place."""
    if not then:
        return 1
    kind, severity = then.removeprefix("corruption(").removesuffix(")").split(", severity=")
    return min(ROWS, 2 * int(severity) + NAMES.index(kind) % 7)


def test_means_over_kinds_and_severities():
    data = Corrupted(hard_by_severity)
    metrics = robustness.make(limit=99)(predict, data)
    wanted = {
        name: np.mean([min(20, 2 * s + place % 7) / 20 for s in range(1, 6)])
        for place, name in enumerate(NAMES)
    }
    assert metrics.pop("robustness_error") == pytest.approx(np.mean(list(wanted.values())))
    assert metrics.pop("robustness/clean") == pytest.approx(1 / 20)
    assert metrics == {f"robustness/{name}": pytest.approx(e) for name, e in wanted.items()}
    assert list(metrics) == [f"robustness/{name}" for name in NAMES]
    specs = [f"corruption({name}, severity={s})" for name in NAMES for s in range(1, 6)]
    assert data.calls == [(99, then) for then in ["", *specs]]


def test_some_kinds_and_severities():
    data = Corrupted(hard_by_severity)
    metrics = robustness.make(kinds=("fog", "snow"), severities=(2, 5))(predict, data)
    fog, snow = NAMES.index("fog") % 7, NAMES.index("snow") % 7
    assert metrics == {
        "robustness_error": pytest.approx((7 + (fog + snow) / 2) / 20),
        "robustness/clean": pytest.approx(1 / 20),
        "robustness/fog": pytest.approx((7 + fog) / 20),
        "robustness/snow": pytest.approx((7 + snow) / 20),
    }
    one = robustness.make(kinds="fog", severities=2)(predict, data)
    assert one["robustness_error"] == one["robustness/fog"] == pytest.approx((4 + fog) / 20)


def test_alexnet_has_an_mce_of_one():
    """Its own errors, as published: here of a classifier that has them on average."""
    assert tuple(robustness.ALEXNET) == NAMES
    share = {name: round(20 * error) / 20 for name, error in robustness.ALEXNET.items()}
    data = Corrupted(lambda then: round(20 * share[then[11:].split(",")[0]]) if then else 0)
    metrics = robustness.make(reference="alexnet")(predict, data)
    wanted = np.mean([share[name] / robustness.ALEXNET[name] for name in NAMES])
    assert metrics["mce_14"] == pytest.approx(wanted) == pytest.approx(1, abs=0.05)
    # as in table 3 of the paper, in percent
    rounded = [round(100 * error) for error in robustness.ALEXNET.values()]
    assert rounded == [89, 89, 92, 82, 83, 79, 80, 87, 82, 56, 85, 65, 72, 61]


def test_real_data_are_corrupted_on_the_way():
    scenes = "fashion_scenes(split={}, size=32, num_examples=6)"
    data = make_data(
        train=scenes.format("train"),
        test=scenes.format("test"),
        batch_size=4,
        train_transform="",
        eval_transform="",
    )
    seen = []

    def predict_and_look(batch):
        seen.append(batch["image"].astype(float)[batch["valid"]])
        return predict({**batch, "image": np.zeros(len(batch["label"]), int)})

    metrics = robustness.make(kinds=("contrast",), severities=(1, 5), limit=4)(
        predict_and_look, data
    )
    assert set(metrics.values()) == {0}
    clean, mild, severe = seen
    spread = lambda images: images.std(axis=(1, 2)).mean()
    assert spread(mild) == pytest.approx(0.4 * spread(clean), rel=0.03)
    assert spread(severe) == pytest.approx(0.05 * spread(clean), rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ("fog", "frost")}, "no corruption 'frost'"),
        ({"kinds": "fogg"}, "no corruption 'fogg': did you mean 'fog'"),
        ({"kinds": ()}, "name at least one, or 'all'"),
        ({"severities": (0, 1)}, r"severities=\(0, 1\), choose some from 1 to 5"),
        ({"severities": 6}, "severities=6, choose some"),
        ({"severities": ()}, r"severities=\(\), choose some"),
        ({"reference": "resnet"}, "reference='resnet': choose alexnet, or leave it out"),
        ({"reference": "alexnet", "severities": (1, 2)}, "over all corruptions and severities"),
        ({"reference": "alexnet", "kinds": ("fog",)}, "over all corruptions and severities"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError, match=message):
        robustness.make(**options)


def test_what_it_cannot_evaluate():
    data = Corrupted(hard_by_severity)
    few = lambda batch: {**predict(batch), "logits": predict(batch)["logits"][:, :30]}
    with pytest.raises(UserError, match="for the 1000 classes of ImageNet, this classifier has 30"):
        robustness.make(reference="alexnet")(few, data)
