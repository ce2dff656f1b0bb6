"""Predictions of classes, several classes and numbers: tables and arrays that agree, by the names
of the classes; features with labels and groups.
"""

import csv
import types

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mae_jax.data import Data, make_data
from mae_jax.data.sources import Arrays
from mae_jax.features import write_features
from mae_jax.model import Model
from mae_jax.predictions import make_writer
from mae_jax.types import UserError

COUNT, NAMES = 5, ("cat", "a/dog, large")
OUTPUTS = {
    "logits": np.float32([[0, 1], [2, -1], [0.5, 0.5], [3, 0], [-1, 4]]),
    "multilabel_logits": np.float32([[0, 1], [2, -1], [-0.5, -0.5], [3, 0], [-1, 4]]),
    "prediction": np.float32([[0.1], [2], [-3e-8], [4e9], [5]]),
}
FIELDS = {"logits": "label", "multilabel_logits": "labels", "prediction": "value"}
LABELS = {
    "label": np.int32([0, 1, 1, 0, 1]),
    "labels": np.uint8([[0, 1], [1, 1], [255, 0], [0, 0], [1, 0]]),
    "value": np.float32([1, 2, 3, 4, 5]),
    "group": np.int32([0, 0, 1, 1, 2]),
}


class Method:
    """Whose features and outputs an image names by its first pixel."""

    def __init__(self, output):
        self.output = output

    def offers(self):
        return ("features", self.output)

    def embeddings(self):
        return ()

    def check_output(self, method, output):
        assert output in self.offers()

    def labels(self):
        return {FIELDS[self.output]: OUTPUTS[self.output].shape[1]}

    def predict(self, params, extra, batch, *, outputs):
        number = batch["image"][:, 0, 0, 0]
        made = {"features": np.eye(COUNT, dtype=np.float32), self.output: OUTPUTS[self.output]}
        return {name: jnp.asarray(made[name])[number] for name in outputs}


@pytest.fixture(params=OUTPUTS)
def run(request):
    """Stands in for a run of one output."""
    images = np.arange(COUNT).repeat(12).reshape(COUNT, 2, 2, 3).astype(np.uint8)
    source = Arrays(dict(image=images, **LABELS), {"label": NAMES, "labels": NAMES})
    data = make_data(
        train="fashion_scenes(size=16, num_examples=1)",
        batch_size=2, train_transform="", eval_transform="", fields=tuple(LABELS), workers=1,
    )  # fmt: skip
    data = Data(**{**vars(data), "sources": {"train": source}})
    method = Method(request.param)

    def predictor(state, outputs):
        return lambda batch: batch | method.predict({}, {}, batch, outputs=outputs)

    return types.SimpleNamespace(method=method, data=data, predictor=predictor)


def table(path):
    """(header, rows) of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows


def expected(output):
    """Probabilities [5, 2] or None, and texts of predictions."""
    values = OUTPUTS[output]
    if output == "logits":
        return scipy.special.softmax(values, axis=1), [NAMES[k] for k in (1, 0, 0, 0, 1)]
    if output == "multilabel_logits":
        return scipy.special.expit(values), [
            *("cat;a/dog, large", "cat", "", "cat;a/dog, large", "a/dog, large")
        ]
    return None, None


def test_a_table_by_names_of_classes(run, tmp_path):
    output, out = run.method.output, tmp_path / "out"
    names = {} if output == "prediction" else {FIELDS[output]: NAMES}
    writer = make_writer(
        run.method, "tasks.finetune", "classify(among=present)|multilabel(limit=3)"
    )
    (line,) = writer.write(run, None, out, names)
    assert line == f"{out}: predictions.csv and features.npz of 5 images"
    header, rows = table(out / "predictions.csv")
    assert [row[0] for row in rows] == [f"[{k}]" for k in range(COUNT)]
    probability, texts = expected(output)
    if output == "prediction":
        assert header == ["file", "prediction"]
        np.testing.assert_array_equal(np.float32([row[1] for row in rows]), OUTPUTS[output][:, 0])
    else:
        assert header == ["file", "p_cat", "p_a/dog, large", "prediction"]
        assert [row[3] for row in rows] == texts
        np.testing.assert_allclose(np.float32([row[1:3] for row in rows]), probability, rtol=1e-6)
    with np.load(out / "features.npz") as file:
        np.testing.assert_array_equal(file["features"], np.eye(COUNT))
        np.testing.assert_array_equal(file["groups"], LABELS["group"])
        np.testing.assert_array_equal(file["multilabels"], LABELS["labels"])
        np.testing.assert_array_equal(file["values"], LABELS["value"])
        assert tuple(file["multilabel_names"]) == tuple(file["class_names"]) == NAMES
    with pytest.raises(UserError, match="there are files in it already"):
        writer.write(run, None, out, names)
    path, count = write_features(run, None, tmp_path / "more" / "f.npz")
    with np.load(path) as file, np.load(out / "features.npz") as other:
        assert count == COUNT and {*file} == {*other}


def test_the_same_in_python(run):
    output = run.method.output
    field = FIELDS[output]
    model = Model(
        name="tasks.finetune", method=run.method, params={}, extra={}, image_shape=(2, 2, 3),
        transform="", class_names={} if output == "prediction" else {field: list(NAMES)},
    )  # fmt: skip
    images = run.data.source("train").arrays["image"]
    found = model.predict(images, batch_size=2)
    probability, texts = expected(output)
    if output == "prediction":
        assert model.classes == () and found.keys() == {"prediction"}
        np.testing.assert_array_equal(found["prediction"], OUTPUTS[output][:, 0])
        return
    np.testing.assert_allclose(found["probability"], probability, rtol=1e-6)
    assert model.classes == NAMES and found["probability"].dtype == np.float32
    if output == "logits":
        assert [model.classes[k] for k in found["prediction"]] == texts
    else:
        shown = [";".join(np.array(model.classes)[row]) for row in found["prediction"]]
        assert shown == texts
