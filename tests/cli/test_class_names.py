"""Names of classes that `mae-jax evaluate` compares: of --train and --images with a model's own."""

import json
import types

import numpy as np
import pytest

from mae_jax.cli import weights
from mae_jax.data import classes
from mae_jax.data.sources import Arrays
from mae_jax.evals import knn, multilabel, ordered, regression
from mae_jax.types import UserError
from mae_jax.workdir import CLASSES, WEIGHTS

FIELDS = {"labels": multilabel, "label": ordered, "value": regression}
"""Field -> evaluator of its predictions."""
NAMES = ["low", "middle", "high"]


def check(folder, field, given, evaluator, *, train="other", classes=3):
    """Checks data with some names against the model of a folder."""
    run = types.SimpleNamespace(
        class_names={field: given} if given else {},
        method=types.SimpleNamespace(labels=lambda: {field: classes}),
        data=types.SimpleNamespace(
            source=lambda split: types.SimpleNamespace(names={field: given} if given else {})
        ),
    )
    args = types.SimpleNamespace(run=folder, train=train, images="test")
    weights.check(args, run, [evaluator])


def line(*args, **options):
    """The line of a refusal."""
    with pytest.raises(UserError) as error:
        check(*args, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("field", FIELDS)
def test_training_images_with_other_names_or_another_order(field, tmp_path):
    (tmp_path / CLASSES).write_text(json.dumps({field: NAMES}))
    evaluator = FIELDS[field].make()
    check(tmp_path, field, NAMES, evaluator)
    check(tmp_path, field, NAMES[::-1], evaluator, train=None)
    check(tmp_path, field, ["other"], knn.make(field=field))
    start = f"{evaluator.name} reads {evaluator.outputs[0]} of the run's own classes, and '{field}'"
    found = line(tmp_path, field, ["low", "high", "middle"], evaluator)
    assert found.startswith(f"{start} of --train has 'high' where the run has 'middle': use the")
    assert "has None where the run has 'high'" in line(tmp_path, field, NAMES[:2], evaluator)
    assert "has 'top' where the run has None" in line(tmp_path, field, [*NAMES, "top"], evaluator)
    assert "has None where the run has 'low'" in line(tmp_path, field, [], evaluator)


def test_without_names_their_number_is_compared(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"data": {"train": "folder('gone')"}}))
    evaluator = multilabel.make()
    check(tmp_path, "labels", NAMES, evaluator)
    assert "has 2 classes, and the model 3" in line(tmp_path, "labels", NAMES[:2], evaluator)


@pytest.mark.parametrize("field", FIELDS)
def test_imported_weights_have_a_number_of_classes(field, tmp_path):
    (tmp_path / WEIGHTS).touch()
    evaluator = FIELDS[field].make()
    check(tmp_path, field, NAMES, evaluator, train=None)
    found = line(tmp_path, field, NAMES[:2], evaluator, train=None)
    of = "" if field == "label" else f" of '{field}'"
    assert found.startswith(f"--images has 2 classes{of}, and these weights 3: ")
    assert line(tmp_path, field, NAMES[:2], evaluator).startswith("--train has 2 classes")


def source(field, names):
    """An example without an image."""
    labels = np.zeros((1, len(names)), np.uint8) if field == "labels" else np.zeros(1, np.int32)
    return Arrays({field: labels}, {field: tuple(names)})


def test_test_images_are_matched_by_name():
    """Ordered classes get the places that they have in the training set."""
    other = ["high", "low"]
    found = classes.like(source("label", other), source("label", NAMES), ("label",))
    assert found.class_names == (*NAMES,) and found.read([0])["label"].tolist() == [2]
    found = classes.like(source("labels", other), source("labels", NAMES), ("labels",))
    assert found.read([0])["labels"].tolist() == [[0, 255, 0]]
    for field, message in dict(
        label="differ: top only", labels="only in config.data.test: top"
    ).items():
        with pytest.raises(UserError, match=message):
            classes.like(source(field, ["top"]), source(field, NAMES), (field,))
    with pytest.raises(
        UserError, match="the classes of 'value' in config.data.train and .* differ"
    ):
        classes.like(source("value", other), source("value", NAMES), ("value",))
