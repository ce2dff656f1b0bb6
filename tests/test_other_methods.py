"""Methods other than MAE through the commands: training, resuming, features, pictures, and what
starts from their encoders.
"""

import json
import shutil

import jax
import numpy as np
import pytest

from mae_jax import weights
from mae_jax.restore import load_run
from tests.helpers.commands import mistake, run
from tests.helpers.tiny_methods import METHODS, TWO_VIEWS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def in_the_project(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tmp_path_factory):
    """Method and workdir of a run of ten steps, which was stopped after five and went on."""
    name = request.param
    workdir = tmp_path_factory.mktemp(name) / "run"
    command = ["train", "--config", f"tests/helpers/tiny_methods.py:{name}", "--workdir", workdir]
    assert run(*command) == 0
    _, state = load_run(workdir)
    whole = {k: np.asarray(v) for k, v in leaves(state)}
    # What a kill after step 5 leaves behind.
    shutil.rmtree(workdir / "checkpoints" / "10")
    (workdir / "results.json").unlink(missing_ok=True)
    assert run(*command) == 0
    _, state = load_run(workdir)
    for name_, leaf in leaves(state):
        np.testing.assert_array_equal(leaf, whole[name_], name_)
    return name, workdir


def leaves(state):
    """(path, leaf) of all that a method keeps."""
    tree = {"params": state.params, "extra": state.extra}
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


@pytest.mark.thorough  # test_methods.py and test_train.py have each part
def test_a_run_gives_features_pictures_and_a_start(trained, tmp_path):
    name, workdir = trained
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    source = f"array_file({str(tmp_path / 'images.npy')!r})"
    out = tmp_path / "features.npz"
    assert run("features", "--run", workdir, "--images", source, "--out", out) == 0
    assert np.load(out)["features"].shape == (5, 4 if name == "vae" else 16)
    pictures = workdir / "figures" / "reconstructions.png"
    # The target 'ema' moves, and is not drawn; `clip` predicts no pixels.
    assert pictures.is_file() == (name not in ("clip", "ema", *TWO_VIEWS))
    costs = json.loads((workdir / "costs.json").read_text())
    assert 0 < costs["encoder_parameters"] < costs["parameters"] and costs["gflops_per_image"] > 0

    encoder = METHODS[name]["encoder"]
    command = (
        "train",
        "--config",
        "tests/helpers/tiny_tasks.py:finetune",
        "--workdir",
        tmp_path / "tuned",
    )
    start = f"--config.init_from.path={workdir}"
    assert run(*command, start, f"--config.method.args.encoder={encoder}") == 0
    saved = weights.read(workdir)[0].params
    _, state = load_run(tmp_path / "tuned")
    kernel = "block_0/mlp/fc1/kernel" if "vit" in METHODS[name]["encoder"] else "block_0/fc1/kernel"
    tuned = dict(leaves(state))[f"params/encoder/{kernel}"]
    assert 0 < np.abs(tuned - saved[f"encoder/{kernel}"]).max() < 0.05


def test_texts_are_asked_for_where_they_are_needed(tmp_path, capsys):
    command = "train", "--workdir", tmp_path, "--config", "tests/helpers/tiny_methods.py:m3ae"
    line = mistake(capsys, *command, "--config.data.fields=('label',)", "--config.evals.run=")
    assert line.startswith("m3ae learns from images and texts: use a source that has them, and")
    plain = "--config.data.train=fashion_scenes(split=train, size=16, num_examples=32)"
    line = mistake(capsys, *command, plain, "--config.evals.run=")
    assert line.startswith("m3ae learns from images and texts: use a source that has them, and")
    line = mistake(capsys, *command, "--config.method.args.length=9")
    assert "texts have the shape [6] and config.method.args.length=9: make them equal" in line
    line = mistake(capsys, *command, "--config.method.args.vocabulary=9")
    assert "and config.method.args.vocabulary=9: raise it" in line
    line = mistake(capsys, *command, "--config.evals.run=retrieval")
    assert "retrieval is for methods that compare images with texts, as clip does" in line


def test_views_are_asked_for_where_they_are_needed_and_only_there(tmp_path, capsys):
    command = "train", "--workdir", tmp_path, "--config"
    line = mistake(
        capsys, *command, "tests/helpers/tiny_methods.py:mocov3", "--config.data.views=1"
    )
    assert line == "mocov3 learns from two views of each image: set config.data.views=2"
    line = mistake(capsys, *command, "tests/helpers/tiny.py", "--config.data.views=2")
    assert line == "mae uses one view of an image: set config.data.views=1"
