"""Modules of the user's own, named in a config by a name with a dot."""

import importlib
import json
import subprocess
import sys

import jax
import pytest
from ml_collections import ConfigDict

from mae_jax import extensions, project, spec
from mae_jax.config import to_json
from mae_jax.data.named import open_sources, source_spec
from mae_jax.data.transforms import make_transforms
from mae_jax.methods import mae, make_method
from mae_jax.models.encoder import make_encoder
from mae_jax.settings import make_evaluators, make_figures, make_log_plan
from mae_jax.types import UserError
from mae_jax.weights import layouts
from mae_jax.workdir import read_config
from tests.helpers.commands import run
from tests.helpers.runs import CONFIG, ROOT

MAKES = "def make(*args, **kwargs):\n    return 'made', args, kwargs\n"


@pytest.fixture
def write(tmp_path, at):
    """Writes modules of my_project in the current folder."""
    at(tmp_path)
    (tmp_path / "my_project").mkdir()

    def add(name, text=MAKES):
        path = tmp_path / "my_project" / f"{name}.py"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        importlib.invalidate_caches()
        return path

    return add


def refused(name, package="methods"):
    """The line that a user reads."""
    with pytest.raises(UserError) as error:
        spec.maker(name, package)
    assert "\n" not in str(error.value)
    return str(error.value)


BUILDERS = {
    "mae_jax.types.Method": lambda: make_method(name="my_project.mine", args={}),
    "mae_jax.evals.features.Evaluator": lambda: make_evaluators("my_project.mine"),
    "mae_jax.figures.figure.Figure": lambda: make_figures("curves|my_project.mine"),
    "mae_jax.writers.writer.Writer": lambda: make_log_plan(
        every=1, writers="tensorboard|my_project.mine"
    ),
    "mae_jax.data.transforms.Transform": lambda: make_transforms("flip|my_project.mine"),
    "mae_jax.data.sources.Source": lambda: open_sources({"train": "my_project.mine"}),
    "mae_jax.models.encoder.Encoder": lambda: make_encoder(
        "my_project.mine", pool="mean", dtype="float32"
    ),
    "mae_jax.masks.Strategy": lambda: mae.make(mask="my_project.mine"),
    "mae_jax.targets.Target": lambda: mae.make(target="my_project.mine"),
    "mae_jax.weights.layouts.Layout": lambda: layouts.find("my_project.mine"),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_kind_of_name(kind, write):
    write("mine")
    with pytest.raises(UserError) as error:
        BUILDERS[kind]()
    assert str(error.value) == (
        f"my_project.mine: make returned a value of type tuple, and must return a {kind}"
    )


def test_names_take_arguments(write):
    write("mine"), write("strict", "def make(*, width=1):\n    return width\n")
    assert spec.maker("my_project.mine", "masks")(1, a=2) == ("made", (1,), {"a": 2})
    with pytest.raises(UserError, match="there is no 'wdth': did you mean 'width'"):
        spec.build("my_project.strict(wdth=1)", "models")


def test_what_a_make_raises_is_one_line(write):
    path = write("broken", "def make(size=1):\n    return 1 // 0\n")
    with pytest.raises(UserError) as error:
        make_evaluators("my_project.broken")
    assert str(error.value).startswith(f"{path}, line 2: ZeroDivisionError")


def test_names_of_the_library_stay_its_own(write, tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.py").write_text(MAKES)
    from mae_jax.tasks import finetune

    assert spec.maker("tasks.finetune", "methods") is finetune.make
    assert "tasks has no 'mine'" in refused("tasks.mine")
    line = refused("data.mine", "data.sources")
    assert "'data.mine' is none of data.sources" in line and "rename the folder" in line
    assert "'tasks.finetune' is none of evals" in refused("tasks.finetune", "evals")


def test_folders_of_the_user_may_be_called_like_what_no_name_chooses():
    for name in ("project", "configs", "report"):
        assert spec.is_extension(f"{name}.mine")


def test_a_name_is_never_an_attribute(write):
    write("mine", MAKES + "class Method:\n    make = make\n")
    for name in ("my_project.mine.make", "my_project.mine.Method"):
        assert refused(name) == (
            f"'{name}' is not a module but an attribute: write my_project.mine, whose make is "
            "called"
        )


def test_missing_modules(write, tmp_path):
    write("mine"), write("others")
    assert refused("your_project.mine") == (
        "no module 'your_project.mine' on the Python path, which is the current folder, "
        f"{tmp_path}, and the installed packages"
    )
    assert refused("my_project.mien").endswith("; its modules are mine, others")
    assert "write FOLDER.FILE, without .py" in refused("my_project/mine.py")
    assert "my_project.mine is one" not in refused("my_project..mine")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("import os\ndef make(:\n", 2, "invalid syntax"),
        ("import os\nimport no_such_module\n", 2, "No module named 'no_such_module'"),
        ("\nfrom my_project import nothing\n", 2, "cannot import name 'nothing' from 'my_project'"),
        ("\n\n1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError: Expecting property name"),
        ("raise SystemExit(3)\n", 1, "SystemExit: 3"),
    ],
)
def test_modules_that_fail(write, text, line, what):
    path = write("broken", text)
    said = refused("my_project.broken")
    assert said.startswith(f"{path}, line {line}: ") and what in said


def test_the_fault_may_be_in_a_neighbor(write):
    write("broken", "from my_project import neighbor\n")
    neighbor = write("neighbor", "\nundefined\n")
    assert refused("my_project.broken").startswith(f"{neighbor}, line 2: NameError")
    write("nulls", b"\0")
    assert "null bytes" in refused("my_project.nulls")


def test_modules_without_make(write):
    path = write("empty", "make = 3\n")
    assert refused("my_project.empty") == (
        f"my_project.empty has no function make ({path}): define make(...)"
    )
    (path.parent / "deep").mkdir()
    (path.parent / "deep" / "mine.py").write_text(MAKES)
    assert "a folder; its modules are mine" in refused("my_project.deep")


def test_what_a_module_prints_is_no_output_of_a_command(write, capsys):
    write("loud", "print('hello')\n" + MAKES)
    spec.maker("my_project.loud", "masks")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello\n")


def test_the_current_folder_is_on_the_path_once_and_last(write, tmp_path):
    sys.path[:] = [place for place in sys.path if place not in ("", str(tmp_path))]
    extensions.add_current_folder(), extensions.add_current_folder()
    assert sys.path.count(str(tmp_path)) == 1 and sys.path[-1] == str(tmp_path)


def test_the_current_folder_comes_first_for_extensions(write, tmp_path, monkeypatch):
    """An installed package of the same name does not hide the user's, nor the other way round."""
    installed = tmp_path / "installed"
    (installed / "my_project").mkdir(parents=True)
    for name in ("__init__", "mine"):
        (installed / "my_project" / f"{name}.py").write_text("")
    sys.path.insert(0, str(installed))
    write("__init__", ""), write("mine")
    assert spec.maker("my_project.mine", "masks")() == ("made", (), {})
    assert sys.path[0] == str(installed)


def test_a_script_finds_them_too(write, tmp_path):
    """A console script does not have the current folder on its path; nor does `python -P`."""
    write("broken", "\n1 / 0\n")
    code = f"import sys; sys.path.append({str(ROOT)!r}); from mae_jax.cli import main; main()"
    options = ["train", "--config", str(ROOT / CONFIG), "--config.method.name=my_project.broken"]
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code, *options], capture_output=True, text=True, cwd=tmp_path
    )
    line = f"mae-jax: {tmp_path}/my_project/broken.py, line 2: ZeroDivisionError"
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(line)


@pytest.mark.parametrize(
    "override",
    [
        "method.name=your_project.method",
        "evals.run=your_project.evaluator",
        "data.train=your_project.source(1)",
        "data.train_transform=your_project.transform",
        "method.args.encoder=your_project.encoder(B)",
    ],
)
def test_commands_refuse_in_one_line(write, override, capsys):
    config = str(ROOT / CONFIG)
    assert run("train", "--config", config, "--workdir", "run", f"--config.{override}") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("mae-jax: no module 'your_project."), said


def test_a_dot_may_be_in_the_name_of_a_folder_of_images(write, tmp_path):
    (tmp_path / "photos.v2").mkdir()
    assert source_spec("photos.v2", "--images") == "folder('photos.v2')"
    with pytest.raises(UserError, match="no module 'photos.v3' on the Python path"):
        open_sources({"train": "photos.v3"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method.name", "my_project.mine"),
        ("method.args.encoder", "my_project.mine(B)"),
        ("data.eval_transform", "resize((8, 8))|my_project.mine"),
        ("evals.run", "my_project.mine"),
    ],
)
def test_what_came_with_weights_is_never_imported(write, tmp_path, key, value):
    """A run of one's own may name them; the same config beside weights may not."""
    write("mine", "raise AssertionError('imported')")
    config = ConfigDict(
        dict(
            method=dict(name="tasks.encode", args=dict(encoder="vit(B)", mean=(0.5,))),
            data=dict(train="", eval_transform="resize((8, 8))", repeats=1, sampling=""),
            evals=dict(run="", figures="auto", baselines=True),
        )
    )
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "weights.safetensors").touch()
    (workdir / "config.json").write_text(to_json(config))
    assert read_config(workdir) == config
    config.update_from_flattened_dict({key: value})
    (workdir / "config.json").write_text(to_json(config))
    with pytest.raises(UserError, match=rf"config\.{key} names the module my_project\.mine, which"):
        read_config(workdir)
    (workdir / "checkpoints").mkdir()
    assert json.loads(to_json(read_config(workdir))) == json.loads(to_json(config))


def test_the_method_and_the_mask_of_a_new_project(at):
    at(project.EXTENSIONS)
    encoder = "vit(width=16, depth=1, heads=2, patch=(2, 4, 4))"
    method = make_method(name="my_project.method", args=dict(encoder=encoder))
    batch, key = method.example((4, 8, 8, 1)), jax.random.key(0)  # a volume
    params, extra = jax.eval_shape(method.init, key, batch)
    assert params["head"]["kernel"].shape == (16, 2 * 4 * 4)
    assert jax.eval_shape(method.loss, params, extra, batch, key, 0).loss.shape == ()
    with pytest.raises(UserError, match="width=0 must be at least 1"):
        mae.make(mask="my_project.mask(width=0)")
