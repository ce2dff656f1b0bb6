"""Published weights in the commands: as a start, as a run to look at, and back out of runs."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from mae_jax import weights
from mae_jax.config import load_config
from mae_jax.ops.posemb import with_prefix
from mae_jax.ops.resample import resample_positions
from mae_jax.run import build
from mae_jax.types import UserError
from mae_jax.weights.files import read_safetensors
from mae_jax.weights.init_from import origin
from tests.helpers.commands import mistake, run
from tests.weights import models

TASKS = "tests/helpers/tiny_tasks.py"


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
def photos(tmp_path_factory):
    """Two classes of noise."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("ants", "bees"):
        (folder / name).mkdir()
        for i in range(4):
            pixels = rng.integers(0, 256, (10, 14, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def hub_cache(folder, files, name="models--org--name"):
    """A local cache of the hub in which org/name has these files."""
    snapshot = folder / name / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (folder / name / "refs").mkdir()
    (folder / name / "refs" / "main").write_text("0123456789abcdef")
    for file in files:
        (snapshot / file.name).write_bytes(file.read_bytes())


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No network, and an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


THOROUGH = [
    pytest.param(name, marks=pytest.mark.thorough) for name in ("hub", "timm", "mae", "imported")
]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["run", "hf", *THOROUGH])
def test_a_task_starts_from_weights_wherever_they_are(source, pretrained, tmp_path, offline):
    out = tmp_path / ("m.safetensors" if source in ("timm", "mae") else "folder")
    path = str(pretrained if source == "run" else out)
    if source != "run":
        layout = source if source in ("timm", "mae") else "hf"
        command = "weights", "export", "--run", pretrained, "--format", layout, "--out", out
        assert run(*command) == 0
    if source == "hub":
        hub_cache(offline, list(out.iterdir()))
        path = "hf://org/name"
    if source == "imported":
        path = str(tmp_path / "imported")
        assert run("weights", "import", out, "--out", path) == 0
    config = load_config(f"{TASKS}:finetune", [f"init_from.path={path}"])
    start = build(config).loaded_state().params
    saved = weights.read(pretrained)[0].params
    kernel = start["encoder"]["block_0"]["attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(kernel, saved["encoder/block_0/attention/qkv/kernel"])
    assert len(origin(path)["digest"]) == 16
    assert (origin(path)["step"] is None) == (source != "run")
    if source == "run":  # what workdirs have written down
        file = pretrained / "checkpoints" / "4" / "leaves" / "metadata"
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        assert origin(path) == dict(step=4, digest=digest)


def test_what_a_task_leaves_to_its_defaults(pretrained, tmp_path, caplog):
    config = load_config(f"{TASKS}:finetune", [f"init_from.path={pretrained}"])
    del config.method.args.mean, config.method.args.std
    config.method.args.ema = 0.5
    state = build(config).loaded_state()
    start = state.params
    copies = [jax.tree.leaves(tree)[0] for tree in (start, state.extra["ema"])]
    np.testing.assert_array_equal(*copies)
    buffers = {x.addressable_shards[0].data.unsafe_buffer_pointer() for x in copies}
    assert len(buffers) == 2, "a step reuses both"
    saved = weights.read(pretrained)[0].params
    kernel = start["encoder"]["block_0"]["attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(kernel, saved["encoder/block_0/attention/qkv/kernel"])
    assert "and config.method.args.mean=(0.5,)" in caplog.text
    del config.method.args.encoder
    config.data.update(train_transform="resize((16, 16))", eval_transform="resize((16, 16))")
    large = build(config)
    with pytest.raises(UserError, match=r"and config.method.args.encoder=vit\(B, patch=16\)$"):
        large.init_from.load(large.abstract_state)  # as loaded_state() does, which draws it first


def test_fixed_positions_are_resampled_where_a_task_learns_them(pretrained):
    """As learned ones are: each patch of a larger image is where it was."""
    larger = [f"data.{name}_transform=resize((16, 16))" for name in ("train", "eval")]
    config = load_config(f"{TASKS}:finetune", [f"init_from.path={pretrained}", *larger])
    found = build(config).loaded_state().params["encoder"]["positions"]
    expected = resample_positions(with_prefix((2, 3), 16), (2, 3), (4, 4))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected - with_prefix((4, 4), 16)).max() > 0.1


def test_the_hub_is_out_of_reach(offline, capsys, tmp_path):
    command = "weights", "import", "hf://org/name", "--out", tmp_path / "out"
    line = mistake(capsys, *command)
    assert "hf://org/name is not in the local cache and the hub cannot be reached" in line
    line = mistake(capsys, "weights", "import", "hf://a b", "--out", tmp_path / "out")
    assert "no name on the hub" in line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (type("ProxyError", (Exception,), {})("407 of the proxy\nmore"), "407 of the proxy"),
        (type("ReadTimeout", (Exception,), {})(), "ReadTimeout"),
        (OSError(""), "OSError"),
    ],
)
def test_the_network_fails(offline, capsys, tmp_path, monkeypatch, error, said):
    """The errors of the hub's HTTP clients have nothing in common."""

    def fails(*_, **__):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    line = mistake(capsys, "weights", "import", "hf://org/name", "--out", tmp_path / "out")
    assert line == f"hf://org/name could not be downloaded ({said})"


def test_a_start_of_another_architecture(tmp_path, capsys):
    weights.write(models.mae(), tmp_path / "a.safetensors", "timm")
    command = "train", "--config", f"{TASKS}:finetune", "--workdir", tmp_path / "run"
    line = mistake(capsys, *command, f"--config.init_from.path={tmp_path / 'a.safetensors'}")
    assert "has another architecture: it is vit(Ti, patch=16), and" in line


@pytest.mark.slow
@pytest.mark.thorough
def test_learned_positions_are_not_dropped_silently(tmp_path, capsys):
    weights.write(models.tuned("cls"), tmp_path / "a.safetensors", "timm")
    command = "train", "--config", f"{TASKS}:linear_probe", "--workdir", tmp_path / "run"
    encoder = "vit(width=32, depth=2, heads=4, patch=8)"
    options = [f"--config.method.args.encoder={encoder}", "--config.data.train_transform=resize"]
    options[1] += "((24, 16))"
    options += ["--config.data.eval_transform=resize((24, 16))"]
    start = f"--config.init_from.path={tmp_path / 'a.safetensors'}"
    line = mistake(capsys, *command, *options, start)
    assert "has learned positions: add learned_positions=True" in line
    options[0] = options[0].replace("patch=8", "patch=8, learned_positions=True")
    assert run(*command, *options, start) == 0


@pytest.mark.slow
def test_every_command_takes_imported_weights(pretrained, photos, tmp_path, capsys):
    file, out = tmp_path / "m.safetensors", tmp_path / "imported"
    command = "weights", "export", "--run", pretrained, "--format", "mae", "--out", file
    assert run(*command) == 0
    assert run("weights", "import", file, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "blocks.{}.attn.qkv.{weight,bias}" in printed
    assert "encoder/block_{}/attention/qkv/{kernel,bias}" in printed
    images = "--run", out, "--images", photos
    assert run("features", *images, "--out", tmp_path / "features.npz") == 0
    assert run("reconstruct", *images, "--count", 2, "--out", tmp_path / "r.png") == 0
    options = "--train", photos, "--evals", "knn(k=1)"
    assert run("evaluate", *images, *options) == 0
    (results,) = out.glob("results_*_train_*.json")
    assert set(json.loads(results.read_text())["results"]) == {
        "raw pixels",
        "random encoder",
        "mae",
    }
    capsys.readouterr()
    line = mistake(capsys, "evaluate", *images, "--evals", "knn(k=1)")
    assert "knn needs labeled training images: give --train" in line
    line = mistake(capsys, "evaluate", "--run", out, "--evals", "knn(k=1)")
    assert "holds weights without images: give --images" in line
    line = mistake(capsys, "train", "--config", "tests/helpers/tiny.py", "--workdir", out)
    assert "holds imported weights: use another --workdir" in line
    again = tmp_path / "again.safetensors"
    command = "weights", "export", "--run", out, "--format", "mae", "--out", again
    assert run(*command) == 0
    for name, array in load_file(file).items():
        np.testing.assert_array_equal(load_file(again)[name], array)
    assert read_safetensors(again)[1] == read_safetensors(file)[1]


@pytest.mark.slow
def test_the_same_features_as_the_run(pretrained, photos, tmp_path):
    out = tmp_path / "imported"
    command = "weights", "export", "--run", pretrained, "--format", "hf", "--out", tmp_path / "hf"
    assert run(*command) == 0 and run("weights", "import", tmp_path / "hf", "--out", out) == 0
    for name, folder in dict(a=pretrained, b=out).items():
        command = "features", "--run", folder, "--images", photos, "--out", tmp_path / f"{name}.npz"
        assert run(*command) == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        np.testing.assert_array_equal(a["features"], b["features"])


@pytest.mark.slow
def test_an_imported_classifier(photos, tmp_path, capsys):
    weights.write(models.tuned("mean", classes=2), tmp_path / "m.safetensors", "timm")
    assert run("weights", "import", tmp_path / "m.safetensors", "--out", tmp_path / "out") == 0
    command = "evaluate", "--run", tmp_path / "out", "--evals", "classify", "--images"
    assert run(*command, photos) == 0
    (photos / "cats").mkdir()
    shutil.copy(photos / "ants" / "0.png", photos / "cats")
    line = mistake(capsys, *command, photos)
    assert "--images has 3 classes, and these weights 2: it needs one sub-folder" in line
    shutil.rmtree(photos / "cats")


def test_the_config_of_imported_weights_has_every_section(tmp_path, root):
    from configs import common
    from mae_jax.workdir import read_config

    weights.write_run(models.mae(), tmp_path / "out")
    found = read_config(tmp_path / "out").to_dict()
    assert found.keys() - {"fingerprints"} == set(common.base())
    assert found["data"].keys() == set(common.base().data)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 24), pytest.param((16, 24), marks=pytest.mark.thorough)])
def test_tuned_positions_of_another_size_and_shape(size, tmp_path):
    """Those of 24 x 16 images, two columns of three patches, as the start for 32 x 24; and for
    16 x 24, which have as many patches.
    """
    model = models.tuned("mean")
    weights.write(model, tmp_path / "a.safetensors", "timm")
    options = [
        f"init_from.path={tmp_path / 'a.safetensors'}",
        "method.args.encoder=vit(width=32, depth=2, heads=4, patch=8)",
        f"data.train_transform=resize({size})",
        f"data.eval_transform=resize({size})",
    ]
    start = build(load_config(f"{TASKS}:finetune", options)).loaded_state().params
    found = np.asarray(start["encoder"]["positions"])
    table = model.params["encoder/positions"]
    grid = (size[0] // 8, size[1] // 8)
    np.testing.assert_array_equal(found, resample_positions(table, (3, 2), grid))


@pytest.mark.slow
def test_tuned_positions_of_an_unknown_shape(tmp_path):
    """Of runs that did not write it down: 36 patches, in three rows here, could be a square."""
    model = models.tuned("mean", columns=12)
    weights.write_run(model, tmp_path / "run")
    file = tmp_path / "run" / "weights.safetensors"
    save_file(load_file(file), file)
    options = [
        f"init_from.path={tmp_path / 'run'}",
        "method.args.encoder=vit(width=32, depth=2, heads=4, patch=8)",
        "data.train_transform=resize((24, 96))",
        "data.eval_transform=resize((24, 96))",
    ]
    start = build(load_config(f"{TASKS}:finetune", options)).loaded_state().params
    found = np.asarray(start["encoder"]["positions"])
    np.testing.assert_array_equal(found, model.params["encoder/positions"])


@pytest.mark.slow
def test_imported_weights_of_gray_images(tmp_path):
    model = models.mae(depth=1, image=(16, 24, 1), patch=8, mean=(0.4,), decoder=(32, 1, 4))
    weights.write(model, tmp_path / "m.safetensors", "mae")
    out, photos = tmp_path / "out", tmp_path / "photos"
    assert run("weights", "import", tmp_path / "m.safetensors", "--out", out) == 0
    photos.mkdir()
    for i in range(3):
        Image.new("L", (20, 20), 30 * i).save(photos / f"{i}.png")
    command = "features", "--run", out, "--images", photos, "--out", tmp_path / "f.npz"
    assert run(*command) == 0
    assert np.load(tmp_path / "f.npz")["features"].shape == (3, 192)
