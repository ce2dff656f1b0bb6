"""`mae-jax explain` in this process: what it writes for models of all kinds, and its mistakes."""

import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from mae_jax import weights
from mae_jax.config import load_config
from mae_jax.methods import make_method
from mae_jax.models.vit import ViT
from mae_jax.train import train
from tests.helpers.commands import mistake, run
from tests.helpers.runs import CONFIG, ROOT
from tests.helpers.tiny_args import NAMES, tiny
from tests.weights import models

TRANSFORMER = {"attention", "distance", "rollout"}
ALWAYS = {"cka", "colors", "similarity", "spectrum"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with one folder for each of two classes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(10):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 128, (24, 24, 3)) + 127 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


def written(folder, name, args, image):
    """A folder of imported weights with random numbers, of any method."""
    method, rng = make_method(name=name, args=args), np.random.default_rng(0)
    batch = {k: np.zeros(x.shape, x.dtype) for k, x in method.example(image).items()}
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    draw = lambda x: (rng.normal(size=x.shape) / 4).astype(x.dtype)
    positive = lambda x: rng.uniform(0.5, 1.5, x.shape).astype(x.dtype)
    flat = lambda tree, draw: {
        path: draw(x) for path, x in traverse_util.flatten_dict(tree, sep="/").items()
    }
    model = weights.Model(flat(shapes[0], draw), name, args, image, flat(shapes[1], positive))
    weights.write_run(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["views"] = method.views
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def explained(out):
    """The content of numbers.json; the other files are there."""
    content = json.loads((out / "numbers.json").read_text())
    text = (out / "page.html").read_text()
    for name in content["views"]:
        assert f'<section id="{name}">' in text
    pictures = {path.stem for path in out.glob("*.png")}
    charts = content["views"].keys() - {"spectrum"}
    assert charts <= pictures and (out / "page.html").stat().st_size < 3e6
    return content


def classifier(folder):
    """A fine-tuned classifier of two classes with random weights."""
    args = models.tuned("mean", classes=2, width=16, heads=2).args
    written(folder, "tasks.finetune", args, (24, 16, 3))
    (folder / "classes.json").write_text(json.dumps({"label": ["night", "day"]}))
    return folder


@pytest.mark.slow
def test_a_classifier(photos, tmp_path, capsys):
    folder = classifier(tmp_path / "tuned")
    options = ["--images", photos, "--count", 3, "--views"]
    names = ["attention", "class_rollout", "colors", "layers", "cka"]
    assert run("explain", "--run", folder, *options, "|".join(names)) == 0
    assert f"wrote {folder / 'explain' / 'page.html'} (0." in capsys.readouterr().out
    content = explained(folder / "explain")
    assert content["sample"] == 10 and content["images"] == 3 and content["grid"] == [3, 2]
    views = content["views"]
    assert list(views) == names and not content["left_out"]
    assert np.shape(views["attention"]["share_on_class_tokens"]) == (2, 2)
    assert np.shape(views["class_rollout"]["relevance"]) == (3, 2, 6)
    assert np.allclose(np.diag(views["cka"]["between_layers"]), 1)
    text = (folder / "explain" / "page.html").read_text()
    assert "Predicted: night" in text or "Predicted: day" in text
    assert "image 1: a" in text
    line = mistake(capsys, "explain", "--run", folder, *options, "reconstruction")
    assert line.startswith("--views reconstruction: the method does not predict masked patches")


@pytest.mark.thorough
def test_all_views_of_a_classifier_and_of_itself(photos, tmp_path):
    folder = classifier(tmp_path / "tuned")
    options = ["--images", photos, "--count", 3, "--against", folder, "--out", tmp_path / "out"]
    assert run("explain", "--run", folder, *options) == 0
    content = explained(tmp_path / "out")
    expected = TRANSFORMER | ALWAYS | {"class_rollout", "layers", "mask_ratio"}
    assert content["views"].keys() == expected
    assert list(content["left_out"]) == ["Reconstructions under several masks"]
    views = content["views"]
    assert np.shape(views["distance"]["pixels"]) == (2, 2)
    assert np.allclose(views["cka"]["against"], views["cka"]["between_layers"])
    assert views["mask_ratio"]["ratios"] == [0, 0.25, 0.5, 0.75]  # 0.9 leaves none of 6 patches
    assert 0 < views["distance"]["uniform"] < 24


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_every_method(name, photos, tmp_path):
    own = tiny(name)
    leaf = name.removeprefix("methods.")
    folder = written(tmp_path / "run", leaf, dict(own.ARGS), own.IMAGE)
    options = ["--images", photos, "--count", 2, "--sample", 8]
    assert run("explain", "--run", folder, *options) == 0
    content = explained(folder / "explain")
    assert content["views"].keys() >= ALWAYS and content["method"] == leaf
    decoders = ("mae", "fcmae", "hpm", "m3ae", "context_encoder")
    assert ("reconstruction" in content["views"]) == (leaf in decoders)
    network = make_method(name=leaf, args=own.ARGS).encoder
    assert (TRANSFORMER <= content["views"].keys()) == isinstance(network, ViT)
    assert ("layers" in content["views"]) == (network.layers > 0)


@pytest.mark.thorough
def test_published_weights(photos, tmp_path, capsys):
    """In the layout of Hugging Face, with a decoder."""
    model = models.mae(depth=2, image=(32, 32, 3), patch=16)
    weights.write(model, tmp_path / "vitmae", "hf")
    out = tmp_path / "out"
    command = "explain", "--run", tmp_path / "vitmae", "--out", out
    assert "holds weights without images: give --images FOLDER" in mistake(capsys, *command)
    assert run(*command, "--images", photos, "--sample", 8) == 0
    content = explained(out)
    expected = TRANSFORMER | ALWAYS | {"layers", "mask_ratio", "reconstruction"}
    assert content["views"].keys() == expected and content["grid"] == [2, 2]
    weights.write(model, tmp_path / "encoder.safetensors", "timm", encoder_only=True)
    other = ["--images", photos, "--sample", 8, "--views", "cka", "--against", tmp_path / "vitmae"]
    assert run("explain", "--run", tmp_path / "encoder.safetensors", "--out", out, *other) == 0
    values = json.loads((out / "numbers.json").read_text())["views"]["cka"]
    assert np.allclose(values["against"], values["between_layers"], atol=1e-4)


@pytest.mark.thorough
def test_a_run_shows_its_own_images(tmp_path):
    config = load_config(str(ROOT / CONFIG), ["schedule.epochs=1.0"])
    config.evals.update(run="", figures="")
    train(config, tmp_path / "run")
    assert run("explain", "--run", tmp_path / "run", "--out", tmp_path / "out") == 0
    content = explained(tmp_path / "out")
    assert content["sample"] == 12 and "reconstruction" in content["views"]


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_draws_the_maps(photos, tmp_path):
    args = models.tuned("cls", width=16, heads=2).args
    folder = written(tmp_path / "tuned", "tasks.finetune", args, (24, 16, 3))
    options = ["--images", photos, "--count", 3, "--views", "attention|rollout|similarity|colors"]
    assert run("explain", "--run", folder, *options) == 0
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--window-size=390,800", "--virtual-time-budget=10000"]
    page = (folder / "explain" / "page.html").as_uri()
    done = subprocess.run([*command, page], capture_output=True, text=True, timeout=200)
    assert 'data-ready="yes"' in done.stdout and done.stdout.count("<canvas") == 2 + 1 + 3
    assert "head 2: max" in done.stdout and done.stdout.count('aria-label="patch row') == 3 * 6


def test_mistakes(photos, tmp_path, capsys):
    say = lambda *more: mistake(capsys, "explain", *more)
    assert say().startswith("the following arguments are required: --run")
    assert "is no folder: give --out" in say("--run", "hf://org/name")
    assert "is no folder: give --out" in say("--run", tmp_path / "nothing")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in say("--run", empty, "--images", photos)
    given = ["--run", empty, "--out", tmp_path / "out"]
    assert "show at least one image" in say(*given, "--count", 0)
    assert "show at least one image" in say(*given, "--count", 9, "--sample", 8)
    assert "explain has no 'colour'" in say(*given, "--views", "colour")
    assert "there is no 'block'" in say(*given, "--views", "attention(block=1)")
    file = photos / "a" / "0.png"
    assert f"--out {file}" in say("--run", empty, "--out", file)
    weights.write_run(models.tuned("cls"), tmp_path / "tuned")
    assert "without images: give --images" in say("--run", tmp_path / "tuned")
    assert not (tmp_path / "out").exists()
