"""Config files: which one a name finds, and one line for whatever is wrong with it."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from mae_jax import config as configs
from mae_jax import experiment
from mae_jax.config import SECTIONS, check_sections, load_changed, load_config
from mae_jax.errors import UserError
from mae_jax.run import _build, build
from mae_jax.train import train
from tests.helpers.commands import mistake, run

IMPORTS = """import sys
import numpy as np
from pathlib import Path
from ml_collections import ConfigDict, FrozenConfigDict, config_dict
from mae_jax.configs import common
"""
BASE = f"{IMPORTS}\ndef get_config():\n    c = common.base()\n    "


def write(folder, text, name="mine.py"):
    """A config file, relative to the current folder."""
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(data)
    return name


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_base(text):
    """A file that changes `common.base()`."""
    return f"{BASE}{text}\n    return c\n"


FILES = {
    # What the file does instead of returning a config.
    "x = 1/0": "mine.py, line 1: ZeroDivisionError: division by zero",
    "import nothing_here": "mine.py, line 1: No module named 'nothing_here'",
    "\nfrom mae_jax.configs import nothing": "mine.py, line 2: cannot import name 'nothing'",
    "def get_config():\n    import nothing_here": "mine.py, line 2: No module named",
    "def get_config():\n    raise ValueError('two\\nlines')": "line 2: ValueError: two lines",
    "def get_config():\n    return {}['x']": "mine.py, line 2: KeyError: 'x'",
    "def get_config():\n    return get_config()": "mine.py, line 2: RecursionError",
    "def get_config():\n    assert False": "mine.py, line 2: AssertionError",
    "def get_config():\n    open('nothing.txt')": "line 2: FileNotFoundError: [Errno 2] No such",
    "import sys\nsys.exit(7)": "mine.py, line 2: SystemExit(7) would end the command",
    "def get_config():\n    raise SystemExit": "line 2: SystemExit(None) would end the command",
    "from mae_jax.types import UserError\nraise UserError('my reason')": "my reason",
    # What is no Python, or no function.
    "def get_config(:": "mine.py is not Python: invalid syntax",
    "x = 1\0": "mine.py",
    b"x = '\xe9'": "mine.py is not Python: (unicode error) 'utf-8' codec can't decode",
    "def get_config():\n\treturn 1\n        return 2": "mine.py is not Python: inconsistent use",
    "": "mine.py has no function get_config(arg)",
    "def get_configs(): pass": "no function get_config(arg): it is for `mae-jax sweep`",
    "get_config = 5": "mine.py: get_config must be a function, and is a value of type int",
    "def get_config(a, b): pass": "get_config needs the arguments a, b, but gets at most one",
    "def get_config(a): pass": "get_config needs the argument 'a': --config FILE:ARG",
    "def get_config(*, a): pass": "get_config needs the arguments a, but gets at most one",
    # What it returns.
    of_base("return"): "get_config returned None: it must return an ml_collections.ConfigDict",
    of_base("return c.to_dict()"): "get_config returned a value of type dict",
    of_base("return 'x'"): "get_config returned a value of type str",
    "async def get_config(): pass": "get_config returned a value of type coroutine",
    "def get_config():\n    yield 1": "get_config returned a value of type generator",
    of_base("del c.data"): "mine.py: config has no section 'data': start from mae_jax.configs.comm",
    of_base("c.data = 5"): "mine.py, line 9: TypeError: Could not override field 'data'",
    of_base("del c.data\n    c.data = 5"): "config.data=5 must be a section",
    of_base("del c.evals\n    c.evals = None"): "config.evals=None must be a section",
    of_base("del c.data.batch_size"): "mine.py: config.data has no 'batch_size'",
    of_base("del c.init_from.path"): "mine.py: config.init_from has no 'path'",
    of_base("del c.method.args"): "mine.py: config.method has no 'args'",
    of_base("del c.data.batch_size\n    c.data.batch_size = '8'"): "batch_size='8' must be of type",
    of_base("del c.evals.every\n    c.evals.every = True"): "evals.every=True must be of type int",
    of_base("c.x = np.zeros(2)"): "config.x=array([0., 0.]) holds a value of type ndarray",
    of_base("c.data.x = Path('x')"): "config.data.x=PosixPath('x') holds a value of type PosixPath",
    of_base("c.x = len"): "config.x=<built-in function len> holds a value of type builtin_func",
    of_base("c.x = {1}"): "config.x={1} holds a value of type set",
    of_base("c.x = b'x'"): "config.x=b'x' holds a value of type bytes",
    of_base("c.x = ({'a': 1},)"): "config.x=({'a': 1},) holds a value of type dict",
    of_base("c.x = float('nan')"): "config.x=nan must be finite",
    of_base("c.x = (1.0, float('inf'))"): "config.x=(1.0, inf) must be finite",
    of_base("c.method.args[1] = 2"): "config.method.args.1: a key must be a text without a dot",
    of_base("c.data[''] = 2"): "config.data.: a key must be a text without a dot, not ''",
    of_base("c.x = c"): "mine.py: RecursionError",
    of_base("c.x = config_dict.required_placeholder(int)"): "config.x is required: give --config.x",
    f"{IMPORTS}def get_config(): return ConfigDict({{'a.b': 1}})": "line 6: ValueError: ConfigDict",
    f"{IMPORTS}def get_config(): return ConfigDict({{'a.b': 1}}, allow_dotted_keys=True)": (
        "mine.py: config.a.b: a key must be a text without a dot, not 'a.b'"
    ),
}


@pytest.mark.parametrize(("text", "message"), FILES.items(), ids=range(len(FILES)))
@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_wrong_file_is_one_line(capsys, folder, text, message):
    name = write(folder, text)
    assert message in mistake(capsys, "train", "--config", name, "--print-config")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("README.md", "--config README.md: the name of a config file ends in .py, or a built-in"),
        ("noending", "--config noending: the name of a config file ends in .py"),
        ("folder.py", "--config folder.py is a folder: give a config file in it"),
        (".", "--config . is a folder"),
        ("nothing.py", "there is no config file or built-in experiment 'nothing.py'"),
        ("quikstart", "no config file or built-in experiment 'quikstart': did you mean "),
        (
            "quickstart.py",
            "no config file 'quickstart.py' here: for the built-in experiment, use",
        ),
        ("configs/mae.py:L/16", "built-in experiment, use --config mae:L/16"),
        ("common", "no config file or built-in experiment 'common': choose ablations,"),
        ("mae:X", "mae.py:X: write SIZE/PATCH"),
        ("quickstart:5", "get_config takes no argument, but '5' was given after the colon"),
        ("compare_methods", "no function get_config(arg): it is for `mae-jax sweep`"),
        ("/dev/null", "there is no config file or built-in experiment '/dev/null'"),
        ("a" * 300, "aaa: File name too long"),
        ("", "argument --config: it is empty"),
        (" ", "argument --config: it is empty"),
        (":5", "there is no config file or built-in experiment ''"),
    ],
)
def test_a_name_that_finds_nothing(capsys, folder, name, message):
    write(folder, "# Text", "README.md")
    write(folder, "x", "noending")
    (folder / "folder.py").mkdir()
    assert message in mistake(capsys, "train", "--config", name, "--print-config")


def test_experiments_are_found_by_name_from_anywhere_and_a_file_wins(capsys, folder, root):
    assert run("train", "--config", "quickstart", "--print-config", "--config.seed=4") == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"--config quickstart: {experiment.SHIPPED / 'quickstart.py'}",
        "quickstart with 1 change(s):",
        "config.seed=4, 0 in the file",
    ]
    found = json.loads(printed.out)
    config = load_config(str(root / "configs" / "quickstart.py"), ["seed=4"])
    assert found == json.loads(configs.to_json(config)) and found["seed"] == 4
    assert load_config("mae:L/16").method.args.encoder == "vit(L, patch=16)"
    (folder / "quickstart").mkdir()  # e.g. of a run
    assert load_config("quickstart").seed == 0
    write(folder, of_base("c.seed = 9"), "quickstart.py")
    assert load_config("quickstart.py").seed == 9
    write(folder, "no Python", "mae")
    with pytest.raises(UserError, match="--config mae: the name of a config file ends in .py"):
        load_config("mae:L/16")


def test_experiments_are_importable_from_the_package(root):
    for name in experiment.shipped():
        module = importlib.import_module(f"mae_jax.configs.{name}")
        assert hasattr(module, "get_config") or hasattr(module, "get_configs")
    names = {path.stem for path in (root / "configs").glob("*.py")}
    assert names == {*experiment.shipped(), "common", "__init__"}
    for name in names:  # a link in a checkout, a copy in an sdist
        there, here = (p / f"{name}.py" for p in (root / "configs", experiment.SHIPPED))
        assert there.read_bytes() == here.read_bytes()


def test_imports_from_before_the_experiments_were_in_the_package(capsys, folder, root, monkeypatch):
    name = write(
        folder, "from configs import common\n\ndef get_config():\n    return common.base()\n"
    )
    # Without the checkout, and without folders of other tests that have configs, too.
    without = [p for p in sys.path if p and not (Path(p) / "configs").exists()]
    monkeypatch.setattr(sys, "path", without)
    for module in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, module)
    said = mistake(capsys, "train", "--config", name, "--print-config")
    assert said == (
        "mine.py, line 1: No module named 'configs': the built-in experiments are in "
        "`mae_jax.configs`: from mae_jax.configs import common"
    )
    monkeypatch.chdir(root)  # in a checkout they go on
    assert load_config(str(folder / name)).seed == 0


def test_a_checkout_whose_files_are_not_those_that_are_imported(capsys, folder):
    (folder / "configs").mkdir()
    write(folder / "configs", (experiment.SHIPPED / "quickstart.py").read_bytes(), "quickstart.py")
    common = experiment.SHIPPED / "common.py"
    write(folder / "configs", common.read_bytes(), "common.py")
    assert experiment.notes("configs/quickstart.py") == []
    write(folder / "configs", common.read_text() + "X = 1\n", "common.py")
    assert run("train", "--config", "configs/quickstart.py", "--print-config") == 0
    assert capsys.readouterr().err == (
        f"configs/quickstart.py uses {common}, not configs/common.py, which differs: to use the "
        f"files beside it, pip install -e {folder}\n"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, [2]]", (1, (2,))),
        ("np.float32(0.5)", 0.5),
        ("np.int64(3)", 3),
        ("(np.float64(1.5), 2)", (1.5, 2)),
        ("config_dict.placeholder(int)", None),
    ],
)
def test_values_are_those_that_json_gives_back(folder, text, value):
    config = load_config(write(folder, of_base(f"c.x = {text}")))
    assert config.x == value and type(config.x) is type(value)
    assert configs.from_json(configs.to_json(config)).to_dict() == config.to_dict()


def test_frozen_and_locked_configs_can_be_changed(folder):
    text = of_base("c.lock(); return FrozenConfigDict(c)")
    config = load_config(write(folder, text), ["seed=3", "data.batch_size=8"])
    assert (config.seed, config.data.batch_size) == (3, 8)
    config.fingerprints = {}  # which a workdir adds
    config = load_config(write(folder, of_base("c.lock()")), ["seed=3"])
    config.fingerprints = {}


def test_derived_and_required_values_follow_overrides(folder):
    text = of_base(
        "c.x = config_dict.required_placeholder(int)\n"
        "    c.schedule.warmup_epochs = c.schedule.get_ref('epochs') * 0.5"
    )
    config, changed = load_changed(write(folder, text), ["x=3", "schedule.epochs=10"])
    assert config.x == 3 and config.schedule.warmup_epochs == 5.0
    assert changed == {
        "x": (None, 3),
        "schedule.epochs": (800.0, 10.0),
        "schedule.warmup_epochs": (400.0, 5.0),
    }
    with pytest.raises(UserError, match="config.x=a is not of type int"):
        load_config("mine.py", ["x=a"])


@pytest.mark.parametrize(
    ("signature", "arg", "value"),
    [
        ("*args", "", "()"),
        ("*args", ":a", "('a',)"),
        ("arg='d', /, **more", ":a:b", "a:b"),
        ("arg='d', *, other=1", "", "d"),
    ],
)
def test_ways_to_take_the_argument(folder, signature, arg, value):
    used = "args" if "args" in signature else "arg"
    text = of_base(f"c.x = str({used})").replace("get_config()", f"get_config({signature})")
    assert load_config(write(folder, text) + arg).x == value


@pytest.mark.parametrize("mark, end", [(b"\xef\xbb\xbf", b"\n"), (b"", b"\r\n"), (b"", b"\r")])
def test_marks_and_line_ends_of_other_systems(folder, mark, end):
    text = of_base("c.seed = 5").encode().replace(b"\n", end)
    assert load_config(write(folder, mark + text)).seed == 5


def test_a_file_that_declares_its_encoding(folder):
    text = "# -*- coding: latin-1 -*-\n" + of_base("c.x = 'é'")
    assert load_config(write(folder, text.encode("latin-1"))).x == "é"


def test_a_file_is_read_as_it_is_now(folder):
    """Python's bytecode files are told by size and second."""
    for seed in (1, 2, 3):
        assert load_config(write(folder, of_base(f"c.seed = {seed}"))).seed == seed
    assert not (folder / "__pycache__").exists()


def test_dataclasses_work_in_a_file(folder):
    text = "from __future__ import annotations\nimport dataclasses\n" + of_base("c.x = A().a")
    text = text.replace("def get", "@dataclasses.dataclass\nclass A:\n    a: int = 3\n\ndef get")
    assert load_config(write(folder, text)).x == 3


def test_ctrl_c_in_a_file_stops(capsys, folder):
    assert run("train", "--config", write(folder, "raise KeyboardInterrupt")) == 130


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("return {}", "get_configs returned no experiment"),
        ("return None", "get_configs returned None: it must return a dict, name -> ConfigDict"),
        (
            "return common.base()",
            "get_configs returned a value of type ConfigDict: it must",
        ),
        ("return {'a/b/0': 5}", "mine.py, a/b/0: get_config returned a value of type int"),
        ("return {1: common.base()}", "it must return a dict, name -> ConfigDict"),
        ("return {'a/b/0': ConfigDict()}", "mine.py, a/b/0: config has no section 'data'"),
        ("sys.exit(7)", "SystemExit(7) would end the command"),
    ],
)
def test_a_wrong_file_of_experiments(capsys, folder, text, message):
    name = write(folder, f"{IMPORTS}def get_configs():\n    {text}\n")
    assert message in mistake(capsys, "sweep", "--config", name, "--list")


def test_the_sections_are_those_that_a_run_takes():
    import inspect

    sections = {
        n for n, p in inspect.signature(_build).parameters.items() if p.annotation is p.empty
    }
    assert sections == set(SECTIONS)
    check_sections(load_config("quickstart"))


def test_an_experiment_without_a_section_is_refused_from_python(folder):
    for function in (build, lambda config: train(config, folder)):
        with pytest.raises(UserError, match="config has no section 'data'"):
            function(ConfigDict(dict(seed=0)))


def test_init_starts_a_project_and_overwrites_nothing(capsys, folder):
    assert run("init", "my project") == 0
    printed = capsys.readouterr().out
    assert "next: cd 'my project' && mae-jax train --config experiment.py" in printed
    files = sorted(path.name for path in (folder / "my project").iterdir())
    assert files == ["README.md", "experiment.py"]
    config = load_config("my project/experiment.py")
    assert config.data.train.startswith("fashion_scenes(")
    (folder / "my project" / "README.md").write_text("mine")
    (folder / "my project" / "experiment.py").unlink()
    said = mistake(capsys, "init", "my project")
    assert "would overwrite my project/README.md" in said and "name another folder" in said
    assert [path.name for path in (folder / "my project").iterdir()] == ["README.md"]
    assert (folder / "my project" / "README.md").read_text() == "mine"
    (folder / "mine").write_text("a file")
    assert "is a file: name a folder" in mistake(capsys, "init", "mine")
    assert "it is empty" in mistake(capsys, "init", "")
    assert run("init", ".") == 0, "a folder with other files"
