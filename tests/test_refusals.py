"""Values, paths and names that cannot work: one line, exit code 2, nothing written."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from mae_jax.cli import commands
from mae_jax.cli.failure import explain
from mae_jax.config import load_config
from mae_jax.data.named import source_spec
from mae_jax.data.other_images import source_like
from mae_jax.engine.optim import make_plan
from mae_jax.errors import UserError
from mae_jax.paths import check_place
from mae_jax.spec import call, maker
from tests.helpers.commands import mistake, run

HUGE = 10**30
PLAN = dict(base_lr=1e-3, epochs=4.0, warmup_epochs=1.0, batch_size=256, num_examples=1000)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.epochs=nan", "config.schedule.epochs=nan must be finite"),
        ("schedule.epochs=-inf", "config.schedule.epochs=-inf must be finite"),
        ("schedule.epochs=1e400", "config.schedule.epochs=1e400 must be finite"),
        (f"schedule.epochs={10**400}", "must be finite"),
        ("schedule.epochs=1e30", "epochs=1e+30 of 32 images are more than 2147483647 steps of 8"),
        ("schedule.warmup_epochs=1e30", "warmup_epochs=1e+30 is longer than the run, config.sched"),
        ("schedule.min_lr=1.0", "min_lr=1.0 is above the peak learning rate, 0.00313"),
        ("schedule.base_lr=1e300", "config.schedule.base_lr=1e300 must be finite in float32"),
        ("optimizer.weight_decay=1e39", "weight_decay=1e39 must be finite in float32"),
        ("method.args.mean=(1e39,1,1)", "mean=(1e+39, 1, 1) must be finite in float32"),
        ("optimizer.clip=inf", "config.optimizer.clip=inf must be finite"),
        ("optimizer.clip=nan", "config.optimizer.clip=nan must be finite"),
        (f"seed={HUGE}", f"seed={HUGE} is too large: it must fit in 64 bits"),
        (f"data.batch_size={HUGE}", f"data.batch_size={HUGE} must be from 1 to 2147483647"),
        (f"accumulate={HUGE}", "it must fit in 64 bits"),
        (f"data.workers={HUGE}", "it must fit in 64 bits"),
        (f"mesh.data={HUGE}", "it must fit in 64 bits"),
        (f"method.args.decoder_width={HUGE}", "may be at most 2147483647"),
        (f"method.args.encoder=vit(width={HUGE}, depth=1, heads=1)", "may be at most 2147483647"),
        ("method.args.encoder=vit(B, mlp_ratio=1e400)", "inf may be at most 2147483647"),
        ("data.fields=(1,)", "config.data: fields=(1,) should be of type tuple of str"),
        ("method.args.mean=('a','b','c')", "mean=('a', 'b', 'c') should be finite numbers"),
        ("method.args.mean=(1,(2,3),4)", "mean=(1, (2, 3), 4) should be finite numbers"),
        ("method.args.mean=({1},2,3)", "mean=({1}, 2, 3) holds a value of type set"),
        ("method.args.mean=0.5", "mean=0.5 is not of type tuple; it is (0.485"),
        (
            "method.args.encoder=resnet(50)",
            "models has no 'resnet': choose clip_vit, convnext, vit",
        ),
        ("method.args.encoder=heads(50)", "models has no 'heads': choose clip_vit, convnext, vit"),
        (
            "method.args.encoder=",
            "'' should name exactly one of models: clip_vit, convnext, vit, vitdet",
        ),
        # A network of another kind is no encoder.
        (
            "method.args.encoder=tokenizer(vit)",
            "models has no 'tokenizer': choose clip_vit, convnext, vit",
        ),
        (
            "method.args.target=teacher('tokenizer(vit)')",
            "models has no 'tokenizer': choose clip_vit, conv",
        ),
        (
            "method.args.mask=attention('tokenizer(vit)')",
            "models has no 'tokenizer': choose clip_vit, conv",
        ),
        ("data.train_transform=random_resized_crop(100000)", "size 100000 is over "),
        (
            "data.eval_transform=resize(8)|center_crop((8, 1000000000))",
            "size (8, 1000000000) is ov",
        ),
        ("data.train_transform=resize(True)", "size True should be a positive number or (height"),
        (
            "data.train_transform=flip(1)",
            "flip: too many positional arguments; its arguments are",
        ),
        ("data.train=fashion_scenes(size=99999999999)", "cannot have size=99999999999: use an int"),
        (
            "method.name=mae.make",
            "no module 'mae.make' on the Python path, which is the current",
        ),
        ("data.train=/data/photos", "no folder of that name here (that would be folder('/data/ph"),
        ("data.test=nowhere", "config.data.test=nowhere: there is no folder of that name here"),
        (".=1", "--config..=1 names no key"),
        ("=", "--config.= names no key"),
        ("a..b=1", "config.a does not exist"),
        ("data.=1", "config.data. does not exist"),
        ("ünïcode=1", "config.ünïcode does not exist"),
    ],
)
def test_values_that_cannot_work(capsys, root, folder, override, message):
    config = ["--config", root / "tests" / "helpers" / "tiny.py"]
    said = mistake(capsys, "train", *config, "--workdir", "run", f"--config.{override}")
    assert message in said, said
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(epochs=-1.0), "config.schedule.epochs=-1.0 must be finite and not negative"),
        (dict(epochs=0.0, warmup_epochs=0.0), "config.schedule.epochs=0.0 must be positive"),
        (dict(epochs=float("nan")), "epochs=nan must be finite"),
        (dict(warmup_epochs=-0.5), "warmup_epochs=-0.5 must be finite and not negative"),
        (dict(warmup_epochs=4.1), "warmup_epochs=4.1 is longer than the run"),
        (dict(min_lr=-1e-9), "min_lr=-1e-09 must be finite and not negative"),
        (dict(min_lr=1.1e-3), "min_lr=0.0011 is above the peak learning rate, 0.001 ="),
        (dict(base_lr=0.0), "base_lr=0.0 must be positive"),
        (dict(base_lr=float("inf")), "base_lr=inf must be positive"),
        (dict(base_lr=1e-45), "which float32 cannot represent"),
        (dict(epochs=1e12), "are more than 2147483647 steps"),
    ],
)
def test_schedules_that_cannot_work(changes, message):
    with pytest.raises(UserError) as error:
        make_plan(**PLAN | changes)
    assert message in str(error.value)


def test_schedules_at_their_limits():
    assert make_plan(**PLAN | dict(min_lr=1e-3)).schedule(16) == np.float32(1e-3)
    assert make_plan(**PLAN | dict(warmup_epochs=4.0)).warmup_steps == 16
    assert make_plan(**PLAN | dict(epochs=2.0**31 * 0.256 - 1)).steps == 2**31 - 3


EMPTY = [
    ("train", "--config", "quickstart", "--workdir"),
    ("train", "--config"),
    ("train", "--config", "quickstart", "--coordinator"),
    ("sweep", "--config", "low_shot", "--workdir"),
    ("evaluate", "--run"),
    ("evaluate", "--run", "x", "--images"),
    ("evaluate", "--run", "x", "--train"),
    ("features", "--run", "x", "--out", "x.npz", "--images"),
    ("features", "--run", "x", "--images", "y", "--out"),
    ("reconstruct", "--run"),
    ("reconstruct", "--run", "x", "--out"),
    ("report", "--sweep"),
    ("report", "--sweep", "x", "--out"),
    ("report", "--sweep", "x", "--notes"),
    ("weights", "import", "x", "--out"),
    ("weights", "import", "--out", "x"),
    ("weights", "export", "--format", "hf", "--out", "x", "--run"),
    ("weights", "export", "--format", "hf", "--run", "x", "--out"),
    ("weights", "export", "--format", "onnx", "--run", "x", "--out", "y", "--images"),
    ("weights", "push", "--repo", "org/name", "--run"),
    ("weights", "push", "--run", "x", "--repo"),
    ("card", "--run"),
    ("card", "--run", "x", "--out"),
    ("prepare", "--images"),
    ("prepare", "--images", "x", "--out"),
    ("prepare", "--images", "x", "--out", "y", "--name"),
    ("bench", "step", "--config"),
    ("bench", "step", "--config", "quickstart", "--out"),
    ("init",),
]


@pytest.mark.parametrize("arguments", EMPTY, ids=" ".join)
@pytest.mark.parametrize("text", ["", "  "])
def test_paths_that_are_empty(capsys, folder, arguments, text):
    said = mistake(capsys, *arguments, text)
    assert ": it is empty: is a variable unset? (see mae-jax " in said
    assert arguments[-1] in said or arguments in (("init",), ("weights", "import", "--out", "x"))
    assert not list(folder.iterdir()), "nothing is written into the current folder"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a" * 300, "File name too long"),
        ("x/" * 3000, "File name too long"),
        ("file", "file is a file: name a folder"),
        ("file/x", "file is a file: name a folder"),
        ("link", "link is a link to gone, which does not exist: create that folder, or remove"),
        ("link/x", "link is a link to gone, which does not exist"),
        ("loop", "loop is a link to loop, which does not exist"),
    ],
)
def test_workdirs_that_cannot_be_made(capsys, root, folder, place, message):
    (folder / "file").write_text("")
    (folder / "link").symlink_to("gone")
    (folder / "loop").symlink_to("loop")
    there = sorted(folder.iterdir())
    for command, config in (
        ("train", root / "tests" / "helpers" / "tiny.py"),
        ("sweep", "low_shot:scenes"),
    ):
        said = mistake(capsys, command, "--config", config, "--workdir", place)
        assert said.startswith(f"--workdir {place.rstrip('/')}: ") and message in said
    assert message in mistake(capsys, "init", place)
    assert sorted(folder.iterdir()) == there


def test_workdirs_that_may_not_be_written_to(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder)
    with pytest.raises(UserError, match=f"no permission to write in {folder}: use another"):
        check_place(folder / "a" / "b", "--workdir")
    check_place(folder.parent / "a" / "b", "--workdir")


def test_a_link_to_a_folder_is_a_workdir(folder):
    (folder / "there").mkdir()
    (folder / "link").symlink_to("there")
    check_place(folder / "link", "--workdir")
    check_place(folder / "link" / "deep" / "down", "--workdir")


def test_what_the_file_system_refuses_is_explained(folder):
    (folder / "file").write_text("")
    (folder / "link").symlink_to("gone")
    for make, message in [
        (lambda: (folder / "link").mkdir(), "this is a link to gone, which does not exist: "),
        (lambda: (folder / "file").mkdir(), "this is a file, and a folder is needed: "),
        (lambda: (folder / ("a" * 300)).mkdir(), "File name too long: "),
        (lambda: (folder / "no" / "x").write_text(""), "No such file or directory: "),
    ]:
        with pytest.raises(OSError) as error:
            make()
        code, line = explain(error.value)
        assert code == 2 and line.startswith(message) and str(folder) in line
    full = OSError(errno.ENOSPC, "No space left on device")
    assert explain(full) == (2, "No space left on device: while writing")


@pytest.mark.parametrize("what", ["a file", "a" * 300, "nowhere"])
def test_runs_that_are_none(capsys, folder, what):
    (folder / "a file").write_text("")
    for command in (
        ("evaluate", "--run", what),
        ("features", "--run", what, "--images", ".", "--out", "x.npz"),
        ("reconstruct", "--run", what),
        ("report", "--sweep", what),
        ("weights", "export", "--format", "hf", "--out", "x", "--run", what),
    ):
        assert what in mistake(capsys, *command)


@pytest.fixture
def photos(folder):
    """A folder of images whose name is no spec."""
    path = folder / "my photos (1)"
    path.mkdir()
    Image.new("RGB", (8, 8)).save(path / "a.png")
    return path


def test_a_bare_folder_is_a_source(folder, photos, monkeypatch):
    assert source_spec("my photos (1)", "x") == "folder('my photos (1)')"
    assert source_spec(str(photos), "x") == f"folder({str(photos)!r})"
    monkeypatch.setenv("HOME", str(folder))
    assert source_spec("~/my photos (1)", "x") == "folder('~/my photos (1)')"
    for spec in ("fashion_scenes", "fashion_scenes(split=train)", "tfds('x')", "folder('a(b')"):
        assert source_spec(spec, "x") == spec
    (folder / "fashion_scenes").mkdir()
    assert source_spec("fashion_scenes", "x") == "fashion_scenes", "as before"
    assert source_spec("./fashion_scenes", "x") == "folder('./fashion_scenes')"
    with pytest.raises(UserError, match=r"is a file: .* such as array_file\('x.npy'\)"):
        (folder / "x.npy").write_text("")
        source_spec("x.npy", "x")


def test_a_run_on_a_bare_folder_is_loaded_where_that_is_gone(photos):
    there = "/nowhere/photos (2)"
    assert source_like(there, str(photos), None) == f"folder({str(photos)!r})"
    assert source_like("photos.v2", "y", None) == "folder('y')", "not imported as a module"


def test_training_on_a_bare_folder_sees_its_images(folder, photos):
    from mae_jax.data import make_data

    options = dict(batch_size=1, train_transform="", eval_transform="", fields=())
    data = make_data(train=str(photos), test="my photos (1)", **options)
    assert [data.source(split).name(0) for split in ("train", "test")] == ["a.png", "a.png"]


def takes(
    *,
    pair: tuple[float, float] | None = None,
    names: list = (),
    k: int | list = 1,
):
    """Arguments whose types are not checked are passed on."""
    return pair, names, k


@pytest.mark.parametrize("value", [(1, 2.0), [0.5, 1], None])
def test_pairs_of_numbers(value):
    assert call("x", takes, pair=value, names=5, k="a") == (value, 5, "a")


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), "ab", 1.0, (1, "a"), (True, 1)])
def test_values_that_are_no_pair_of_numbers(value):
    with pytest.raises(UserError) as error:
        call("x", takes, pair=value)
    assert str(error.value) == f"x: pair={value!r} should be of type (float, float) or None"


@pytest.mark.parametrize(
    ("package", "name", "message"),
    [
        ("methods", "nothing", "methods has no 'nothing': choose bigan, "),
        ("methods", "tasks.tune", "tasks has no 'tune': did you mean 'finetune'?"),
        (
            "evals",
            "features",
            "evals has no 'features': choose classes, classify, detection, knn, logistic, masked",
        ),
        (
            "data.sources",
            "images",
            "data sources has no 'images': choose array_file, captioned, coco, ",
        ),
        (
            "models",
            "norm",
            "models has no 'norm': choose clip_vit, convnext, text_tower, tokenizer, vit",
        ),
    ],
)
def test_only_what_can_be_chosen_is_named(package, name, message):
    with pytest.raises(UserError) as error:
        maker(name, package)
    assert message in str(error.value)


def test_print_config_opens_nothing(capsys, folder):
    """Neither data nor a workdir: the folder of images does not exist."""
    assert run("train", "--config", "mae:L/16,fsdp", "--print-config", "--workdir", "run") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["mesh"] == {"data": 1, "fsdp": -1} and not list(folder.iterdir())
    assert printed["data"]["train"] == "folder('data/imagenet/train')"


def test_the_last_of_two_overrides_counts(root):
    assert load_config(str(root / "tests" / "helpers" / "tiny.py"), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("config", "workdir"), [("mae:L/16", "runs/mae_L_16"), ("quickstart", "runs/quickstart")]
)
def test_a_workdir_is_named_after_an_experiment(config, workdir):
    assert str(commands.default_workdir(config)) == workdir
