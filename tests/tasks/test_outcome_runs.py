"""Runs for labels other than one class: killed and resumed they are the same; their results,
figures and predictions; and labels that do not fit.
"""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import mae_jax
from mae_jax.data.columns import columns
from mae_jax.data.sources import Arrays, fashion_scenes
from mae_jax.data.subset import Part
from mae_jax.evals import measured, multilabel, ordered, regression
from mae_jax.restore import load_run
from mae_jax.types import UserError
from tests.helpers.commands import mistake, run

pytestmark = pytest.mark.slow

CONFIG = "tests/helpers/tiny_outcomes.py"
MEASURES = {
    one.__name__.rpartition(".")[2]: one.measure_of for one in (multilabel, ordered, regression)
}
METRICS = {
    "ordered": {"kappa", "kappa_low", "class_mae", "accuracy", "balanced_accuracy", "auroc", "ece"},
    "multilabel": {"auroc", "average_precision", "f1", "auroc_high", "f1/Bag"},
    "regression,absolute": {"r2", "mae", "rmse", "spearman", "r2_low"},
    "regression,probe": {"r2", "mae", "rmse", "spearman", "r2_low", "knn_r2", "ridge_r2"},
    "ordered,probe": {"kappa", "nll", "knn"},
    "multilabel,probe": {"auroc", "knn_auroc", "logistic_auroc"},
}


@pytest.fixture(autouse=True)
def in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.mark.thorough  # test_methods.py and test_outcome_files.py have each part
@pytest.mark.parametrize("arg", METRICS)
def test_a_run_from_labels_to_predictions(arg, tmp_path, capsys):
    workdir, command = tmp_path / "run", ("train", "--config", f"{CONFIG}:{arg}", "--workdir")
    assert run(*command, workdir) == 0
    made, state = load_run(workdir)
    whole = jax.tree.map(np.array, (state.params, state.extra))
    shutil.rmtree(workdir / "checkpoints" / "4")  # what a kill after step 2 leaves behind
    (workdir / "results.json").unlink()
    assert run(*command, workdir) == 0
    _, state = load_run(workdir)
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.extra), whole)

    (metrics,) = json.loads((workdir / "results.json").read_text())["final"].values()
    assert METRICS[arg] <= {*metrics}
    check_constants(arg, state.extra, made)
    if arg == "ordered":
        for name in ("confusion", "calibration"):
            with Image.open(workdir / "figures" / f"{name}.png") as picture:
                assert min(picture.size) > 300
    check_predictions(workdir, made, tmp_path, capsys)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["multilabel", "regression", "ordered"])
def test_a_probe_with_several_heads(kind, tmp_path):
    """The metrics of the head that `probe` selects are those of the evaluator of its kind."""
    workdir = tmp_path / "run"
    assert run("train", "--config", f"{CONFIG}:{kind},probe,heads", "--workdir", workdir) == 0
    (metrics,) = json.loads((workdir / "results.json").read_text())["final"].values()
    made, state = load_run(workdir)
    (judge, metric), output = made.method.criterion(), made.method.offers()[1]
    predictor = made.predictor(state, (output,), None)
    found = {"val": [], "test": []}
    for split, values in found.items():
        rows = measured.read(
            predictor, made.data, split, None, output=output, field=made.method.objective.field
        )
        names, ones = [str(k) for k in range(10)], np.ones(len(rows.labels))
        for head in range(len(made.method.lr_factors)):
            measure = MEASURES[judge](rows.predictions[:, head], rows.labels, names)
            values.append(measure(ones)[metric])
    best = np.nanargmin(found["val"]) if kind == "ordered" else np.nanargmax(found["val"])
    assert metrics["head"] == best
    assert metrics["val"] == pytest.approx(found["val"][best], rel=1e-4)
    assert metrics["probe"] == pytest.approx(found["test"][best], rel=1e-4)


def check_constants(arg, extra, made):
    """Of all training labels, as the source has them."""
    if "multilabel" in arg:
        assert "objective" not in extra
        return
    fields = made.data.sample(1, ("value" if "regression" in arg else "label",))
    if "regression" in arg:
        value = fields["value"].astype(np.float64)
        assert value.shape == (24,) and value.min() >= 0.5 and value.max() <= 0.9
        assert extra["objective"]["mean"] == pytest.approx([value.mean()])
        assert extra["objective"]["std"] == pytest.approx([value.std()])
    else:
        counts = np.bincount(fields["label"], minlength=5)
        assert extra["objective"]["weights"] == pytest.approx(24 / (5 * np.maximum(counts, 1)))


def check_predictions(workdir, made, tmp_path, capsys):
    """The table of `mae-jax predict` is what Python predicts for the same files."""
    rng, files = np.random.default_rng(0), []
    for number in range(3):
        files.append(tmp_path / "photos" / f"{number}.png")
        files[-1].parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(files[-1])
    out = tmp_path / "out"
    assert run("predict", "--run", workdir, "--images", tmp_path / "photos", "--out", out) == 0
    assert "predictions.csv and features.npz of 3 images" in capsys.readouterr().out
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    model = mae_jax.load(workdir)
    found = model.predict(files, batch_size=2)
    arrays = model.predict(np.stack([np.asarray(Image.open(path)) for path in files]))
    for name, values in found.items():
        np.testing.assert_allclose(values, arrays[name], rtol=1e-5, atol=1e-6)
    numbers = np.float32([row[1:-1] or row[1:] for row in rows])
    wanted = found.get("probability", found["prediction"].reshape(3, -1))
    np.testing.assert_allclose(numbers, wanted, rtol=1e-4, atol=1e-6)
    if model.classes:
        assert header[1:-1] == [f"p_{name}" for name in model.classes]
    with np.load(out / "features.npz") as file:
        np.testing.assert_allclose(file["features"], model.features(files), rtol=1e-4, atol=1e-5)


def test_labels_that_do_not_fit_are_refused_before_training(capsys, tmp_path):
    command = ("train", "--workdir", tmp_path / "run", "--config")
    said = mistake(capsys, *command, f"{CONFIG}:multilabel", "--config.method.args.classes=9")
    assert said.startswith("'labels' has the shape [10] for each example, and with config.method")
    assert said.endswith("classes=9 it should have [9]: set classes to 10")
    said = mistake(capsys, *command, f"{CONFIG}:regression", "--config.method.args.classes=2")
    assert "'value' has the shape [] for each example" in said and "set classes to 1" in said
    said = mistake(capsys, *command, f"{CONFIG}:regression", "--config.method.args.mixup=0.8")
    assert "cannot mix or smooth labels (mixup=0.8)" in said
    said = mistake(capsys, *command, f"{CONFIG}:regression", "--config.data.fields=('label',)")
    assert said.startswith("regression needs values, and config.data.test has none")
    several = "--config.data.train=fashion_scenes(size=32, objects=(1, 2), num_examples=24)"
    said = mistake(capsys, *command, f"{CONFIG}:regression", several)
    assert said.startswith("the training set has no field 'value': use a source that has it")
    said = mistake(capsys, "train", "--config", "outcomes:ordered,absolute")
    assert "write multilabel, regression, ordered" in said


def test_labels_without_images():
    """Of all examples where they are in memory, or of some that are read."""
    scenes = fashion_scenes.make(size=16, num_examples=70, objects=(1, 3))
    every = scenes.read(np.arange(70))["labels"]
    found = columns(scenes, 10_000, ("labels",), 3)["labels"]
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(every, axis=0))
    assert len(columns(scenes, 5, ("labels",), 3)["labels"]) == 5
    part = Part(fashion_scenes.make(size=16, num_examples=9), np.array([4, 7]))
    assert columns(part, 1, ("value", "label"), 0)["value"].shape == (2,)
    np.testing.assert_array_equal(part.column("label"), part.read(np.arange(2))["label"])
    with pytest.raises(UserError, match="the training set has no field 'depth'"):
        columns(scenes, 5, ("depth",), 0)


def test_labels_of_scenes():
    several = fashion_scenes.make(size=32, num_examples=6, objects=(1, 4)).read(np.arange(6))
    for labels, boxes in zip(several["labels"], several["box_label"], strict=True):
        assert np.flatnonzero(labels).tolist() == sorted({*boxes.tolist()} - {-1})
    sizes = fashion_scenes.make(size=16, num_examples=40, label="size")
    assert isinstance(sizes, Arrays) and len(sizes.names["label"]) == 5
    label, value = sizes.column("label"), sizes.column("value")
    np.testing.assert_array_equal(label, np.floor((value - 0.5) / 0.08).astype(int))
    heights = np.ptp(sizes.arrays["box"][:, ::2], axis=1)
    assert (heights <= value + 2 / 16).all(), "the garment is inside of its square"
