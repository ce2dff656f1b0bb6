"""The commands as people type them: what they print, what they write, and one clear line with
exit code 2 for every mistake."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from mae_jax.cli import commands
from tests.helpers.commands import mistake, run


@pytest.fixture(scope="module")
def config(root):
    return root / "tests" / "helpers" / "tiny.py"


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """The workdir of a finished run of four steps."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    assert (
        run(
            "train",
            "--config",
            config,
            "--workdir",
            workdir,
            "--config.schedule.epochs=1.0",
            "--config.checkpoint.every=2",
        )
        == 0
    )
    return workdir


@pytest.fixture
def photos(tmp_path):
    """A folder of three images of different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    for name, image in (("a.png", pixels), ("b.jpg", pixels[:20]), ("c.png", pixels[:, :, 0])):
        Image.fromarray(image).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "override, message",
    [
        ("method.args.mask_ratoi=0.5", "did you mean 'mask_ratio'?"),
        ("method.argz.mask_ratio=0.5", "did you mean 'args'?"),
        ("seeed=1", "did you mean 'seed'?"),
        ("method.args.mask_ratio=high", "config.method.args.mask_ratio=high is not of type float"),
        ("data.batch_size=8.5", "is not of type int"),
        ("seed", "needs a value"),
        ("data=1", "is a section"),
        ("data.batch_size=7", "batch_size=7 is not divisible by 2 devices"),
        ("data.train_transform=random_resized_crop((8, 10))", "width 10 is not a multiple"),
        ("data.eval_transform=resize((8, 10))", "width 10 is not a multiple of the patch size 4"),
        ("method.args.mask_ratio=1.0", "mask_ratio 1.0 is outside [0, 1)"),
        ("method.args.mask_ratio=-0.1", "mask_ratio -0.1 is outside [0, 1)"),
        ("method.args.mask_ratio=0.9", "leaves none of 6 patches visible"),
        ("method.args.mask=blocks", "masks has no 'blocks': did you mean 'block'?"),
        ("method.args.loss=huber", "choose mse, l1"),
        ("method.args.dtype=float16", "choose float32, bfloat16"),
        ("method.args.decoder_heads=3", "width 8 must be a multiple of its 3 heads"),
        ("method.args.encoder=vit(X)", "vit size 'X' is unknown"),
        ("method.args.encoder=vit(B, heigth=3)", "there is no 'heigth'"),
        ("method.args.encoder=vti(B)", "did you mean 'vit'?"),
        ("method.args.mean=(0.1,0.2)", "mean has 2 values for 3 channels"),
        ("method.name=maee", "did you mean 'mae'?"),
        ("data.train=folder(nowhere)", "there is no folder 'nowhere'"),
        ("data.train=fashion_scene(split=train)", "did you mean 'fashion_scenes'?"),
        ("data.train_transform=random_cut(8)", "transforms has no 'random_cut'"),
        ("data.pipeline=torch", "choose arrays, tf"),
        ("mesh.fsdp=3", "does not cover 2 devices"),
        ("optimizer.name=adam", "optimizer 'adam' is unknown"),
        ("schedule.epochs=0.0", "epochs=0.0 must be positive"),
        ("checkpoint.keep=1", "keep >= 2"),
        ("data.test=", "config.data.test names no source"),
        ("evals.run=svm", "evals has no 'svm'"),
        ("evals.run=knn(k=2.5)", "knn: k=2.5 should be of type int"),
        ("evals.every=-5", "must be 0 (only at the end) or more"),
        ("log.every=0", "config.log.every=0 must be at least 1"),
        ("accumulate=0", "config.accumulate=0 must be at least 1"),
        ("max_skipped=0", "config.max_skipped=0 must be at least 1"),
        ("seed=-1", "must be in [0, 2**32)"),
        ("schedule.base_lr=-1.0", "base_lr=-1.0 must be positive"),
        ("optimizer.clip=0.0", "clip=0.0 positive or None"),
        ("method.args.mask_ratio=0.0", "masks nothing to learn from"),
        ("method.args.std=(0.0,)", "must be positive"),
        ("method.args.encoder=vit(B, patch=2.0)", "patch=2.0 should be of type int"),
        ("method.args.encoder=vit(B, dtype=float16)", "'dtype' is a config value of its own"),
        ("accumulate=3", "is not divisible by 2 devices x 3 accumulation steps"),
    ],
)
def test_mistakes_in_a_config(capsys, config, tmp_path, override, message):
    workdir = tmp_path / "run"
    overrides = ["--config.evals.run=knn(k=3)", f"--config.{override}"]
    said = mistake(capsys, "train", "--config", config, "--workdir", workdir, *overrides)
    assert message in said, said
    assert not list(workdir.glob("*.jsonl")) and not list(workdir.glob("checkpoints/*"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config", "nowhere.py"], "there is no config file or built-in experiment 'nowhere.py'"),
        (["--config", "tests/helpers/tiny.py:B/16"], "takes no argument"),
        (["--config", "configs/mae.py:X/16"], "write SIZE/PATCH"),
        (
            ["--config", "configs/mae.py:B/16,tensor"],
            "'tensor' is none of data, fsdp, hybrid, cross",
        ),
        (["--config", "tests/helpers/tiny.py", "--workdir", "gs://b/run"], "mount the bucket"),
        (["--config", "tests/helpers/tiny.py", "--seed", "3"], "unknown argument '--seed'"),
    ],
)
def test_mistakes_in_the_arguments(capsys, root, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(root)
    assert message in mistake(capsys, "train", "--workdir", tmp_path / "run", *arguments)


def test_a_misspelt_key_in_a_process_of_its_own(root, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mae_jax",
            "train",
            "--config",
            "configs/quickstart.py",
            "--config.method.args.mask_ratoi=0.5",
        ],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "mae-jax: config.method.args.mask_ratoi does not exist: did you mean 'mask_ratio'?\n"
    )


def test_a_truncated_image_is_named(capsys, config, tmp_path, photos):
    data = (photos / "b.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(data[: len(data) // 2])
    said = mistake(
        capsys,
        "train",
        "--config",
        config,
        "--workdir",
        tmp_path / "run",
        f"--config.data.train=folder({str(photos)!r})",
        "--config.data.test=",
    )
    assert "cannot read image 1, " in said and "b.jpg" in said and "truncated" in said


def test_a_checkpoint_cut_short_is_replaced_by_the_one_before(capsys, caplog, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    files = [p for p in (workdir / "checkpoints" / "4" / "state").rglob("*") if p.is_file()]
    newest = max(files, key=lambda p: p.stat().st_size)
    newest.write_bytes(newest.read_bytes()[:100])
    assert run("reconstruct", "--run", workdir, "--count", 2) == 0
    assert "checkpoint 4 is unreadable" in caplog.text


def test_evaluate_prints_a_table_and_writes_results(capsys, trained):
    assert run("evaluate", "--run", trained, "--evals", "knn(k=1)|logistic(l2=1.0)") == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("raw pixels", "random encoder", "mae", "logistic"))
    results = json.loads((trained / "results.json").read_text())
    assert results["step"] == 4 and 0 <= results["results"]["mae"]["knn"] <= 1


def test_reconstruct_your_own_images(trained, photos, tmp_path):
    out = tmp_path / "out.png"
    assert run("reconstruct", "--run", trained, "--images", photos, "--out", out) == 0
    assert Image.open(out).width > 300


def test_features_of_a_folder(trained, photos, tmp_path):
    for name in ("f.npz", "f.safetensors"):
        assert run("features", "--run", trained, "--images", photos, "--out", tmp_path / name) == 0
    arrays = np.load(tmp_path / "f.npz")
    assert arrays["features"].shape == (3, 16) and arrays["features"].dtype == np.float32
    assert [name.rsplit("/")[-1] for name in arrays["names"]] == ["a.png", "b.jpg", "c.png"]
    with safe_open(tmp_path / "f.safetensors", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("features"), arrays["features"])
        assert json.loads(file.metadata()["names"]) == list(arrays["names"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["evaluate"], "nothing to evaluate"),
        (
            ["evaluate", "--evals", "knn(k=99)"],
            "knn needs 99 training examples, and there are only 32",
        ),
        (["evaluate", "--config.seed=1"], "the config stored in the workdir"),
        (["reconstruct", "--count", "0"], "must be at least 1"),
        (["features", "--images", "nowhere", "--out", "f.npz"], "there is no folder 'nowhere'"),
    ],
)
def test_mistakes_with_a_trained_run(capsys, trained, arguments, message):
    command, *rest = arguments
    assert message in mistake(capsys, command, "--run", trained, *rest)


def test_features_need_a_known_ending(capsys, trained, photos, tmp_path):
    said = mistake(
        capsys, "features", "--run", trained, "--images", photos, "--out", tmp_path / "f.csv"
    )
    assert ".npz or .safetensors" in said


def test_a_folder_that_is_no_run(capsys, tmp_path):
    assert "not the workdir of a run" in mistake(capsys, "evaluate", "--run", tmp_path)


def test_doctor_reports(capsys):
    assert run("doctor") == 0
    printed = capsys.readouterr().out
    assert "jaxlib" in printed and "device 0" in printed and "host memory" in printed


def test_commands_explain_themselves(capsys):
    assert run("--help") == 0
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("train", "evaluate", "reconstruct", "features", "doctor")
    )


def test_mistakes_in_the_command(capsys):
    assert "required: COMMAND (see mae-jax --help)" in mistake(capsys)
    assert "invalid choice: 'trian'" in mistake(capsys, "trian")
    assert "required: --config (see mae-jax train --help)" in mistake(capsys, "train")


@pytest.mark.parametrize(
    "config, workdir",
    [
        ("configs/quickstart.py", "runs/quickstart"),
        ("configs/mae.py:L/16", "runs/mae_L_16"),
        ("/a/b.py:../photos", "runs/b_photos"),
    ],
)
def test_a_workdir_is_named_after_its_config(config, workdir):
    assert str(commands.default_workdir(config)) == workdir


HELP = """
import contextlib, io, sys
from mae_jax.cli import make_parser
commands = next(a.choices for a in make_parser()._actions if a.dest == "command")
leaves = [[name] for name in commands]
leaves += [["weights", action] for action in ("import", "export", "push")]
for words in [[], *leaves]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        make_parser().parse_args([*words, "--help"])
    assert "usage: mae-jax" in out.getvalue(), words
heavy = {"jax", "flax", "numpy", "tensorflow", "ml_collections"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_help_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
