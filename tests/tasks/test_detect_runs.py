"""Runs of detection: evaluated, drawn, written to files; killed and resumed they are the same; and
eight scenes can be learned.
"""

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


def trained(workdir, arg="resume"):
    """The run and its state."""
    command = ("train", "--config", f"tests/helpers/tiny_detect.py:{arg}", "--workdir", workdir)
    assert run(*command) == 0
    return load_run(workdir)


@pytest.fixture(scope="module")
def detector(root, tmp_path_factory):
    """The workdir of four steps."""
    workdir = tmp_path_factory.mktemp("detector") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        trained(workdir)
    return workdir


def test_a_run_is_evaluated_and_drawn(detector):
    found = json.loads((detector / "results.json").read_text())
    metrics = found["final"]["tasks.detect"]
    assert {"box_ap", "box_ap50", "mask_ap", "mask_ap75"} <= {*metrics}
    assert found["metrics"]["box_ap"]["table"] and found["metrics"]["mask_ap50"]["table"]
    with Image.open(detector / "figures" / "detection.png") as picture:
        assert picture.width > picture.height
    names = json.loads((detector / "classes.json").read_text())["box_label"]
    assert names[0] == "T-shirt/top" and len(names) == 10


def test_predictions_of_a_folder(detector, tmp_path, capsys):
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for name, size in {"a.png": (40, 64), "b.jpg": (50, 30)}.items():
        pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(photos / name)
    command = ("predict", "--run", detector, "--images", photos, "--out", tmp_path / "out")
    assert run(*command) == 0 and "2 images" in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    sizes = [(row["file_name"], row["height"], row["width"]) for row in content["images"]]
    assert sizes == [("a.png", 40, 64), ("b.jpg", 50, 30)]
    assert [row["name"] for row in content["categories"]][:2] == ["T-shirt/top", "Trouser"]
    for row in content["annotations"]:
        _, height, width = sizes[row["image_id"] - 1]
        left, top, wide, high = row["bbox"]
        assert 0 <= left <= left + wide <= width + 1e-6 and 0 <= top <= top + high <= height + 1e-6
    assert "there are files in it already" in mistake(capsys, *command)


def test_a_killed_run_goes_on_bit_for_bit(detector, tmp_path):
    workdir = shutil.copytree(detector, tmp_path / "run")
    _, state = load_run(workdir)
    whole = jax.tree.map(np.array, state.params)
    shutil.rmtree(workdir / "checkpoints" / "4")  # what a kill after step 2 leaves behind
    (workdir / "results.json").unlink()
    _, state = trained(workdir)
    jax.tree.map(np.testing.assert_array_equal, state.params, whole)


def test_eight_scenes_are_learned_by_heart(tmp_path):
    """In two to six minutes of two cores. On some processors the masks of one class of eight,
    sandals with thin straps, stay empty.
    """
    trained(tmp_path, "overfit")
    metrics = json.loads((tmp_path / "results.json").read_text())["final"]["tasks.detect"]
    assert metrics["box_ap50"] > 0.9 and metrics["mask_ap50"] > 0.85
