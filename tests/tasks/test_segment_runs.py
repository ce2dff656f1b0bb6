"""Runs of segmentation: killed and resumed they are the same, and eight scenes can be learned."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from mae_jax.restore import load_run
from tests.helpers.commands import mistake, run

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


@pytest.fixture(autouse=True)
def in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


def trained(workdir, arg):
    """The run and its state."""
    command = ("train", "--config", f"tests/helpers/tiny_segment.py:{arg}", "--workdir", workdir)
    assert run(*command) == 0
    return load_run(workdir)


@pytest.fixture(scope="module")
def segmented(root, tmp_path_factory):
    """The workdir of four steps."""
    workdir = tmp_path_factory.mktemp("segmented") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        trained(workdir, "linear")
    return workdir


@pytest.mark.parametrize("head", ["linear", "upernet"])
def test_a_killed_run_goes_on_with_its_statistics(head, segmented, tmp_path):
    workdir = tmp_path / "run"
    if head == "linear":
        shutil.copytree(segmented, workdir)
    else:
        trained(workdir, head)
    _, state = load_run(workdir)
    whole = jax.tree.map(np.array, (state.params, state.extra))
    statistics = whole[1]["batch_stats"]
    norm = statistics["head_norm"] if head == "linear" else statistics["head"]["fuse"]["norm"]
    assert np.std(norm["mean"]) > 0
    shutil.rmtree(workdir / "checkpoints" / "4")  # what a kill after step 2 leaves behind
    (workdir / "results.json").unlink()
    _, state = trained(workdir, head)
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.extra), whole)


def test_a_run_is_evaluated_and_drawn(segmented):
    found = json.loads((segmented / "results.json").read_text())
    (name,) = found["final"]
    metrics = found["final"][name]
    assert name == "tasks.segment" and {"miou", "macc", "aacc", "iou/background"} <= {*metrics}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert found["metrics"]["iou/background"]["table"] == "" and found["metrics"]["miou"]["table"]
    with Image.open(segmented / "figures" / "segmentation.png") as picture:
        assert picture.width > picture.height / 2


def test_predictions_of_a_folder(segmented, tmp_path, capsys):
    """At the size of each image, whatever that is; as the model computes them."""
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    images = {"a.png": (64, 64), "more/b.jpg": (50, 80), "more/c.png": (64, 64)}
    for name, size in images.items():
        images[name] = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(images[name]).save(photos / name)
    command = ("predict", "--run", segmented, "--images", photos, "--out", tmp_path / "out")
    assert run(*command) == 0 and "of 3 images" in capsys.readouterr().out
    found = {}
    for name, image in images.items():
        with Image.open(tmp_path / "out" / "labels" / f"{name[:-4]}.png") as labels:
            found[name], colors = np.asarray(labels), labels.getpalette()
        assert labels.mode == "P" and found[name].shape == image.shape[:2]
        with Image.open(tmp_path / "out" / "overlays" / f"{name[:-4]}.png") as overlay:
            assert overlay.size == image.shape[1::-1]
    made, state = load_run(segmented)
    batch = {"image": np.stack([images["a.png"], images["more/c.png"]])}
    logits = jax.jit(functools.partial(made.method.predict, outputs=("segmentation",)))(
        state.params, state.extra, batch
    )["segmentation"]
    same = np.asarray(logits).argmax(-1) == np.stack([found["a.png"], found["more/c.png"]])
    assert same.mean() > 0.999, "but for ties"
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert [row["name"] for row in classes][:2] == ["background", "T-shirt/top"]
    assert bytes.fromhex(classes[3]["color"][1:]) == bytes(colors[9:12]) and len(classes) == 11
    assert "there are files in it already" in mistake(capsys, *command)
    wrong = mistake(capsys, *command[:-1], tmp_path / "new", "--spec", "knn")
    assert "tasks.segment predicts segmentation" in wrong


def test_eight_scenes_are_learned_by_heart(tmp_path):
    """In three minutes of two cores."""
    made, state = trained(tmp_path, "overfit")
    rows = next(iter(made.data.eval("train")))
    method = made.method
    predict = jax.jit(functools.partial(method.predict, outputs=("segmentation",)))
    logits = predict(state.params, state.extra, {"image": rows["image"]})["segmentation"]
    predicted, labels = np.asarray(logits).argmax(-1)[rows["valid"]], rows["segmentation"]
    labels = labels[rows["valid"]]
    ious = []
    for k in np.unique([predicted, labels]):
        ours, theirs = predicted == k, labels == k
        ious.append((ours & theirs).sum() / (ours | theirs).sum())
    assert np.mean(ious) > 0.95
