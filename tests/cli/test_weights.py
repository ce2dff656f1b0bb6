"""Commands on runs whose images, kernels or devices are others now than in training."""

import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from mae_jax import weights
from mae_jax.config import load_config
from mae_jax.engine.checkpoint import Checkpoints
from mae_jax.restore import load_run
from mae_jax.run import build
from mae_jax.tasks import finetune
from mae_jax.types import UserError
from mae_jax.weights.init_from import make_init_from
from mae_jax.workdir import claim
from tests.helpers.commands import mistake, run

pytestmark = pytest.mark.slow

TASKS = "tests/helpers/tiny_tasks.py"
NAMES = [f"{number}_{name}" for number, name in enumerate("abcdefghij")]
"""As many classes as the scenes have."""


@pytest.fixture(scope="module", autouse=True)
def in_the_project(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield


def begun(workdir, name, *changes):
    """The workdir of a run that has saved its first state."""
    config = load_config(name, changes)
    started = build(config)
    claim(workdir, config, started.data.fingerprints())
    with Checkpoints(workdir / "checkpoints", every=1) as checkpoints:
        checkpoints.save(started.initial_state(), 1)
    return workdir


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, in_the_project):
    """The workdir of a classifier."""
    return begun(tmp_path_factory.mktemp("classifier"), f"{TASKS}:finetune")


def class_folders(folder, names):
    """A folder with an image of each class."""
    for name in names:
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), (200, 10, 10)).save(folder / name / "a.png")
    return folder


def test_other_training_images_number_no_classes_anew(classifier, tmp_path, capsys):
    scenes = "fashion_scenes(split=test, size=16, num_examples=20)"
    command = "evaluate", "--run", classifier, "--evals", "classify"
    assert run(*command) == run(*command, "--train", scenes) == 0
    found = [json.loads(path.read_text())["results"] for path in classifier.glob("results*.json")]
    assert len(found) == 2 and found[0] == found[1]
    learned = load_run(classifier)[0].data.source("train").class_names
    folders = [
        class_folders(tmp_path / "other", NAMES),
        class_folders(tmp_path / "same", learned),  # but a folder has them in the order of names
    ]
    for folder in folders:
        evals = "--evals", "knn(k=3)|classify", "--train", folder, "--images", folder
        line = mistake(capsys, *command[:3], *evals)
        assert line.startswith("classify reads logits of the run's own classes")
    features = "--evals", "knn(k=3)", "--train", folders[0], "--images", folders[0]
    assert run(*command[:3], *features) == 0


def test_training_images_that_are_elsewhere_now(classifier, tmp_path, capsys):
    workdir = shutil.copytree(classifier, tmp_path / "run")
    config = json.loads((workdir / "config.json").read_text())
    config["data"]["train"] = "folder('gone')"
    (workdir / "config.json").write_text(json.dumps(config))
    command = "evaluate", "--run", workdir, "--evals", "classify", "--images"
    scenes = "fashion_scenes(split=test, size=16, num_examples=20)"
    assert run(*command, scenes, "--train", scenes) == 0
    few = class_folders(tmp_path / "few", NAMES[:9])
    assert mistake(capsys, *command, few, "--train", few).startswith("classify reads logits")


def test_the_classes_of_an_exported_classifier_are_its_own(classifier, tmp_path, capsys):
    command = "weights", "export", "--run", classifier, "--format", "stablehlo", "--output"
    folder = class_folders(tmp_path / "other", NAMES)
    assert run(*command, "logits", "--out", tmp_path / "a") == 0
    assert run(*command, "logits", "--out", tmp_path / "b", "--images", folder) == 0
    a, b = (json.loads((tmp_path / name / "meta.json").read_text()) for name in "ab")
    assert len(a.pop("classes")) == 10 and a == b
    line = mistake(capsys, *command, "logits", "--out", tmp_path / "c", "--head", 0)
    assert "--head is not for the format stablehlo" in line


ARGS = [
    "encoder=vit(width=16, depth=1, heads=2, patch=4, attention=xla)",
    "decoder_heads=1",
    "decoder_attention=xla",
    "dtype=bfloat16",
]


@pytest.fixture(scope="module")
def fused(tmp_path_factory, in_the_project):
    """The workdir of a masked autoencoder that was trained with the kernels of a GPU."""
    changes = [f"method.args.{arg}" for arg in ARGS]
    workdir = begun(tmp_path_factory.mktemp("mae"), "tests/helpers/tiny.py", *changes)
    path = workdir / "config.json"
    path.write_text(path.read_text().replace("xla", "cudnn"))
    assert path.read_text().count("cudnn") == 2
    return workdir


def test_without_a_gpu_a_run_is_used_by_what_is_there(fused, tmp_path):
    assert run("reconstruct", "--run", fused, "--count", 2, "--out", tmp_path / "r.png") == 0
    run_, state = load_run(fused)
    assert run_.config.method.args.decoder_attention == "auto"
    out = tmp_path / "m.safetensors"
    command = "weights", "export", "--run", fused, "--format", "mae", "--image-size", "8,12"
    assert run(*command, "--out", out) == 0
    for start in (fused, out):
        config = load_config(f"{TASKS}:finetune", [f"init_from.path={start}"])
        kernel = (
            build(config).loaded_state().params["encoder"]["block_0"]["attention"]["qkv"]["kernel"]
        )
        expected = state.params["encoder"]["block_0"]["attention"]["qkv"]["kernel"]
        np.testing.assert_array_equal(kernel, expected)


def test_what_is_served_runs_everywhere(fused, tmp_path):
    out = tmp_path / "out"
    assert run("weights", "export", "--run", fused, "--format", "stablehlo", "--out", out) == 0
    function = jax.export.deserialize((out / "function.stablehlo").read_bytes())
    assert "cudnn" not in function.mlir_module() and function.platforms == ("cpu", "cuda", "tpu")


def test_the_kernels_that_only_some_devices_have_are_left_out():
    args = dict(encoder="vit(B, attention = 'cudnn', remat=dots)", mean=(0.5,))
    there = dict(encoder="vit(B, attention=auto, remat=dots)", mean=(0.5,))
    assert weights.portable_args(args) == there
    assert weights.portable_args(there | dict(decoder_attention="pallas")) == there | dict(
        decoder_attention="auto"
    )
    plain = dict(encoder="vit(B, attention=xla)", decoder_attention="blockwise")
    assert weights.portable_args(plain) == plain


def test_a_task_may_start_and_learn_by_other_kernels():
    method = finetune.make(encoder="vit(Ti, patch=8)")
    args = dict(encoder="vit(Ti, patch=8, attention=cudnn)", dtype="bfloat16")
    config = ConfigDict(dict(name="tasks.finetune", args=args))
    start = make_init_from(dict(path="somewhere"), config=config, method=method, image=None)
    with pytest.raises(UserError, match="there is no somewhere"):
        start.load(None)
