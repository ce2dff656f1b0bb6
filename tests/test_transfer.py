"""From a pre-trained run to a classifier and its numbers, as people type it; and their mistakes."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mae_jax import weights
from mae_jax.data.sources import fashion_scenes
from mae_jax.restore import load_run
from mae_jax.tasks import finetune
from tests.helpers import tiny
from tests.helpers.commands import mistake, run

pytestmark = pytest.mark.slow

TASKS = "tests/helpers/tiny_tasks.py"
FIELDS = "image=image, label=label"
rare = functools.partial(pytest.param, marks=pytest.mark.thorough)


@pytest.fixture(scope="module", autouse=True)
def in_the_project(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, in_the_project):
    """The workdir of a masked autoencoder of four steps."""
    workdir = tmp_path_factory.mktemp("runs") / "mae"
    options = "--config.schedule.epochs=1.0", "--config.schedule.warmup_epochs=0.0"
    assert run("train", "--config", "tests/helpers/tiny.py", "--workdir", workdir, *options) == 0
    return workdir


@pytest.fixture(scope="module")
def tuned(pretrained, tmp_path_factory):
    """The workdir of a classifier that was fine-tuned from it."""
    workdir = tmp_path_factory.mktemp("runs") / "tuned"
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", workdir
    assert run(*command, f"--config.init_from.path={pretrained}") == 0
    return workdir


def results(workdir, name="results.json"):
    """What a run's results say of what it trained."""
    return list(json.loads((workdir / name).read_text())["results"].values())[-1]


def test_fine_tuning_starts_from_the_pretrained_encoder(pretrained, root):
    from mae_jax.config import load_config
    from mae_jax.run import build

    config = load_config(f"{TASKS}:finetune", [f"init_from.path={pretrained}"])
    start = build(config).loaded_state().params
    saved = weights.read(pretrained)[0].params
    kernel = start["encoder"]["block_0"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_array_equal(kernel, saved["encoder/block_0/mlp/fc1/kernel"])
    assert "fc_norm" in start and np.abs(start["head"]["kernel"]).max() < 2e-4


def test_every_number_of_a_classifier(tuned, capsys):
    assert set(results(tuned)) == {"top1", "top5", "nll", "ece"}
    evals = "classify,robustness(kinds=fog, severities=1),knn(k=(1, 3))"
    assert run("evaluate", "--run", tuned, "--evals", evals) == 0
    found = results(tuned)
    assert {"robustness/fog", "robustness/clean", "knn_1", "knn_3", "top1"} <= set(found)
    assert found["robustness/clean"] == pytest.approx(1 - found["top1"])
    printed = capsys.readouterr().out
    assert "nll nats" in printed and "robustness/fog %" in printed


def test_what_may_be_set_differently_when_a_run_goes_on(pretrained, tuned, tmp_path, capsys):
    workdir = shutil.copytree(tuned, tmp_path / "run")
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", workdir
    spelt = f"{pretrained.parent}/../{pretrained.parent.name}/{pretrained.name}"
    assert run(*command, f"--config.init_from.path={spelt}") == 0
    assert "init_from.path" in mistake(capsys, *command, "--config.init_from.path=")
    # The network may be computed in another way.
    encoder = tiny.ENCODER.replace(")", ", remat=dots, gather=onehot)")
    again = f"--config.init_from.path={pretrained}", f"--config.method.args.encoder={encoder}"
    assert run(*command, *again) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"config.method.args.encoder is now '{encoder}', was '{tiny.ENCODER}'" in said


@pytest.fixture(scope="module")
def probe(pretrained, tmp_path_factory):
    """The workdir of a linear probe of it, on a part of the images."""
    workdir = tmp_path_factory.mktemp("runs") / "probe"
    command = "train", "--config", f"{TASKS}:linear_probe", "--workdir", workdir
    few = f"--config.init_from.path={pretrained}", "--config.data.subset=share(0.7)"
    assert run(*command, *few) == 0
    return workdir


def test_a_frozen_encoder(pretrained, probe):
    assert set(results(probe)) == {"probe", "val", "head", "knn", "logistic"}
    _, state = load_run(probe)
    saved = weights.read(pretrained)[0].params
    np.testing.assert_array_equal(
        state.params["encoder"]["embed"]["kernel"], saved["encoder/embed/kernel"]
    )


@pytest.fixture
def rendition(tuned, tmp_path):
    """A folder with three of the classes that the classifier knows."""
    run_, _ = load_run(tuned)
    for name in np.array(run_.data.source("train").class_names)[[2, 5, 7]]:
        folder = tmp_path / "rendition" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (20, 20), (200, 10, 10)).save(folder / "a.png")
    return tmp_path / "rendition"


def test_another_test_set(tuned, rendition, capsys):
    before = results(tuned)
    options = "--images", rendition, "--evals", "classify(among=present)"
    assert run("evaluate", "--run", tuned, *options) == 0
    (written,) = [path for path in tuned.glob("results_*rendition.json")]
    assert results(tuned, written.name)["top1"] in (0, 1 / 3, 2 / 3, 1)
    assert results(tuned) == before
    (rendition / "unicorn").mkdir()
    Image.new("RGB", (20, 20)).save(rendition / "unicorn" / "a.png")
    assert "unicorn only in the latter" in mistake(capsys, "evaluate", "--run", tuned, *options)


def test_features_of_all_images_whatever_the_task_held_out(probe, tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(7):
        Image.new("RGB", (20, 20), (30 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    options = "--images", tmp_path / "photos", "--out", tmp_path / "f.npz"
    assert run("features", "--run", probe, *options) == 0
    written = np.load(tmp_path / "f.npz")
    assert written["features"].shape == (7, 16)
    assert list(written["names"]) == [f"{i}.png" for i in range(7)]


@pytest.mark.thorough
def test_what_deviates_from_the_file_is_said(tmp_path, capsys):
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", tmp_path / "run"
    assert run(*command, "--config.data.batch_size=16", "--config.evals.run=") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{TASKS}:finetune with 2 change(s)" in said
    assert "config.data.batch_size=16, 8 in the file" in said
    assert "lr 0.00625 (0.1 x 16 / 256) after 0 steps" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["method.args.classes=3"], "10 classes, and config.method.args.classes=3"),
        (["data.fields=()", "evals.run="], "the training set has no labels"),
        (["init_from.path=nowhere"], "there is no nowhere: pass a file, a folder or hf://org/name"),
        (
            ["method.args.encoder=vit(width=32, depth=1, heads=2, patch=4)"],
            "has another architecture: it is vit(width=16, depth=1, heads=2, patch=4)",
        ),
        (
            ["method.args.encoder=vit(width=16, depth=1, heads=2, patch=2)"],
            "config.method.args.encoder=vit(width=16, depth=1, heads=2, patch=2)",
        ),
        (["method.args.trainable=2"], "trainable 2: choose 'all', 'mlp' or a number up to 1"),
        rare(["data.subset=per_class(1000)"], "images, fewer than 1000: lower it"),
        rare(["data.fields=()"], "classify needs labels"),
        (["evals.run=probe"], "there is no 'val' split: config.data.held_out is 0"),
        (
            ["evals.run=probe", "data.held_out=0.5"],
            "it is for tasks.linear_probe: use classify, knn or logistic here",
        ),
        (
            ["data.eval_transform=resize((8, 16))"],
            "images are (8, 12, 3) in training and (8, 16, 3)",
        ),
        rare(["method.args.mean=(0.5, 0.5)"], "mean has 2 values for 3 channels"),
        rare(["method.args.std=(0.0,)"], "std=(0.0,) must be positive"),
        (["evals.run=classify", "data.test="], "there is no 'test' split"),
    ],
)
def test_mistakes_are_one_line(pretrained, tmp_path, capsys, options, message):
    if not any("init_from" in option for option in options):
        options = [*options, f"init_from.path={pretrained}"]
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", tmp_path / "run"
    line = mistake(capsys, *command, *(f"--config.{option}" for option in options))
    assert message in line


def test_classify_without_a_classifier(pretrained, capsys):
    line = mistake(capsys, "evaluate", "--run", pretrained, "--evals", "classify")
    assert line.startswith("classify reads the output 'logits', and mae has features, tokens")
    assert "fine-tune or probe first" in line


def test_labels_outside_the_classes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, labels in (("train", [0, 1, 2, 3] * 4), ("test", [0, 1, 2, 7])):
        images = rng.integers(0, 256, (len(labels), 16, 16, 3)).astype(np.uint8)
        np.savez(tmp_path / f"{split}.npz", image=images, label=np.array(labels))
    options = [
        f"--config.data.{split}=array_file('{tmp_path / split}.npz', {FIELDS})"
        for split in ("train", "test")
    ]
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", tmp_path / "run", *options
    line = mistake(capsys, *command)
    assert "the classes of config.data.train and config.data.test differ" in line
    assert "4, 5, 6, 7 only in the latter" in line
    np.savez(tmp_path / "train.npz", image=images, label=np.array([0, -1, 2, 3]))
    assert "-1" in mistake(capsys, *command)


@pytest.mark.thorough
def test_a_label_that_only_shows_in_training(tmp_path, capsys, monkeypatch):
    """As TensorFlow Datasets have them for images without a known class."""
    make = fashion_scenes.make

    @functools.wraps(make)
    def with_unknown(**options):
        source = make(**options)
        source.arrays["label"] = np.where(np.arange(source.num_examples) % 3, -1, 0)
        return source

    monkeypatch.setattr(fashion_scenes, "make", with_unknown)
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", tmp_path / "run"
    line = mistake(capsys, *command, "--config.evals.run=")
    assert "label -1 of the train split is none of the 10 classes" in line


@pytest.mark.thorough
def test_other_sizes_shapes_and_channels(pretrained, tmp_path):
    """From 8 x 12 color images to 16 x 8 gray ones."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 20, 20, 1)).astype(np.uint8)
    np.savez(tmp_path / "gray.npz", image=images, label=np.arange(16) % 10)
    source = f"array_file('{tmp_path / 'gray.npz'}', {FIELDS})"
    options = dict(
        train=source,
        test=source,
        train_transform="resize((16, 8))",
        eval_transform="resize((16, 8))",
    )
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", tmp_path / "run"
    changes = [f"--config.data.{name}={value}" for name, value in options.items()]
    changes += ["--config.method.args.mean=(0.5,)", "--config.method.args.std=(0.25,)"]
    assert run(*command, *changes, f"--config.init_from.path={pretrained}") == 0
    _, state = load_run(tmp_path / "run")
    assert state.params["encoder"]["embed"]["kernel"].shape == (4 * 4 * 1, 16)
    assert state.params["encoder"]["positions"].shape == (1 + 4 * 2, 16)
    again = *command[:4], tmp_path / "again", *changes, "--config.schedule.epochs=0.5"
    assert run(*again, f"--config.init_from.path={tmp_path / 'run'}") == 0, "tuned once more"
    Image.new("RGB", (20, 20), (30, 0, 0)).save(tmp_path / "red.png")
    options = "--images", tmp_path, "--out", tmp_path / "f.npz"
    assert run("features", "--run", tmp_path / "run", *options) == 0, "of a folder, as gray images"


def test_a_class_without_images(tmp_path, capsys):
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(tmp_path / "set" / "cat" / "a.png")
    options = [f"--config.data.{split}=folder('{tmp_path / 'set'}')" for split in ("train", "test")]
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", tmp_path / "run", *options
    assert "no image of the class 'dog'" in mistake(capsys, *command)


@pytest.mark.thorough
def test_a_batch_that_does_not_fit(tmp_path, capsys, monkeypatch):
    """The network's activations are made larger than any machine."""
    loss = finetune.Finetuning.loss

    def hungry(self, params, extra, batch, key, step):
        output = loss(self, params, extra, batch, key, step)
        huge = jax.lax.optimization_barrier(jnp.full((1 << 22, 1 << 24), output.loss))
        return output._replace(loss=output.loss + huge[0, 0])

    monkeypatch.setattr(finetune.Finetuning, "loss", hungry)
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", tmp_path / "run"
    line = mistake(capsys, *command)
    assert line.startswith("the compiled step beside the train state needs 281 TB")
    assert "lower config.data.batch_size (8 now), or raise config.accumulate (1 now)" in line
