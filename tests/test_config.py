"""Config files, overrides of every type, and the record of a config."""

import sys

import pytest
from ml_collections import ConfigDict, config_dict

from mae_jax import config as configs
from mae_jax.types import UserError

FILE = """
from ml_collections import ConfigDict


def get_config({arguments}):
    return ConfigDict(dict(size="{value}", lr=0.1))
"""


@pytest.fixture
def config():
    """A config with a value of every type."""
    return ConfigDict(
        dict(
            seed=0,
            name="mae",
            ratio=0.75,
            flag=True,
            mean=(0.5, 0.4),
            optimizer=dict(
                lr=1e-3,
                clip=config_dict.placeholder(float),
                warmup=config_dict.placeholder(int),
                layers=dict(decay=1.0),
            ),
        )
    )


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=3", 3),
        ("seed=-3", -3),
        ("name=vit(B, patch=16)", "vit(B, patch=16)"),
        ("name=5", "5"),
        ("name=", ""),
        ("name=a=b", "a=b"),
        ("name=none", "none"),
        ("ratio=0.5", 0.5),
        ("ratio=1e-3", 1e-3),
        ("ratio=1", 1.0),
        ("flag=False", False),
        ("flag=false", False),
        ("flag=true", True),
        ("mean=(0.1, 0.2, 0.3)", (0.1, 0.2, 0.3)),
        ("mean=[1, 2]", (1, 2)),
        ("mean=1,2", (1, 2)),
        ("mean=()", ()),
        ("optimizer.lr=2", 2.0),
        ("optimizer.clip=0.5", 0.5),
        ("optimizer.clip=1", 1.0),
        ("optimizer.clip=none", None),
        ("optimizer.warmup=10", 10),
        ("optimizer.layers.decay=.75", 0.75),
    ],
)
def test_overrides(config, override, value):
    configs.apply_override(config, override)
    found = config
    for key in override.partition("=")[0].split("."):
        found = found[key]
    assert found == value and type(found) is type(value)


def test_an_override_changes_nothing_else(config):
    before = config.to_dict()
    configs.apply_override(config, "optimizer.lr=2")
    before["optimizer"]["lr"] = 2.0
    assert config.to_dict() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", "config.sed does not exist: did you mean 'seed'?"),
        ("optimizer.clipp=1", "config.optimizer.clipp does not exist: did you mean 'clip'?"),
        ("optimzer.lr=1", "config.optimzer does not exist: did you mean 'optimizer'?"),
        (
            "optimizer.layer.decay=1",
            "config.optimizer.layer does not exist: did you mean 'layers'?",
        ),
        ("zzz=1", "config.zzz does not exist: choose flag, mean, name, optimizer, ratio, seed"),
        ("=1", "--config.=1 names no key: write --config.key.path=value"),
        ("seed.deep=1", "config.seed is not a section"),
        ("optimizer=1", "config.optimizer is a section: set one of its keys: clip, layers, lr"),
        ("seed", "--config.seed needs a value: --config.seed=VALUE"),
        ("seed=0.5", "config.seed=0.5 is not of type int; it is 0 in"),
        ("seed=true", "config.seed=true is not of type int"),
        ("seed=one", "config.seed=one is not of type int"),
        ("ratio=half", "config.ratio=half is not of type float; it is 0.75 in"),
        ("ratio=true", "config.ratio=true is not of type float"),
        ("flag=1", "config.flag=1 is not of type bool"),
        ("flag=yes", "config.flag=yes is not of type bool"),
        ("mean=0.5", "config.mean=0.5 is not of type tuple"),
        ("mean=(1", "config.mean=(1 is not of type tuple"),
        ("optimizer.clip=much", "config.optimizer.clip=much is not of type float"),
        ("optimizer.clip=True", "config.optimizer.clip=True is not of type float"),
        ("optimizer.warmup=1.5", "config.optimizer.warmup=1.5 is not of type int"),
        ("name=None", "config.name=None: leave it empty instead, --config.name="),
        ("mean=0.5", "it is (0.5, 0.4) in the config file: write a tuple, such as (0.5,)"),
        ("optimizer.warmup=0.5", "config.optimizer.warmup=0.5 is not of type int"),
    ],
)
def test_wrong_overrides_are_explained(config, override, message):
    before = config.to_dict()
    with pytest.raises(UserError) as error:
        configs.apply_override(config, override)
    assert message in str(error.value)
    assert config.to_dict() == before


def test_nothing_is_evaluated(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        configs.apply_override(config, "seed=open('written', 'w')")
    assert not (tmp_path / "written").exists()


def write(folder, text):
    """A config file; the path of it."""
    path = folder / "experiment.py"
    path.write_text(text)
    return str(path)


def test_load_config_with_overrides_in_order(tmp_path):
    path = write(tmp_path, FILE.format(arguments="", value="B"))
    assert configs.load_config(path).to_dict() == {"size": "B", "lr": 0.1}
    config = configs.load_config(path, ["lr=1", "size=L", "lr=2"])
    assert config.to_dict() == {"size": "L", "lr": 2.0}


def test_load_config_with_an_argument(tmp_path):
    text = FILE.format(arguments='size="B"', value='" + size + "')
    path = write(tmp_path, text)
    assert configs.load_config(path).size == "B"
    assert configs.load_config(f"{path}:L/16").size == "L/16"


def test_an_argument_for_a_file_that_takes_none(tmp_path):
    path = write(tmp_path, FILE.format(arguments="", value="B"))
    with pytest.raises(UserError, match="takes no argument, but 'L' was given after the colon"):
        configs.load_config(f"{path}:L")


def test_no_argument_for_a_file_that_needs_one(tmp_path):
    path = write(tmp_path, FILE.format(arguments="size", value='" + size + "'))
    with pytest.raises(UserError, match="experiment.py.*argument"):
        configs.load_config(path)


def test_a_missing_file_names_one_that_exists():
    with pytest.raises(
        UserError, match="no config file or built-in experiment .nothing.py.: choose"
    ):
        configs.load_config("nothing.py")


def test_a_folder_is_not_a_config_file(tmp_path):
    with pytest.raises(UserError, match="is a folder: give a config file in it"):
        configs.load_config(str(tmp_path))


def test_a_file_without_get_config(tmp_path):
    with pytest.raises(UserError, match=r"has no function get_config\(arg\)"):
        configs.load_config(write(tmp_path, "x = 1\n"))


def test_a_file_that_is_not_python(tmp_path):
    with pytest.raises(UserError, match="experiment.py is not Python"):
        configs.load_config(write(tmp_path, "def get_config(:\n"))


def test_configs_of_the_project_load_from_anywhere(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = configs.load_config(str(root / "configs" / "quickstart.py"), ["seed=7"])
    assert config.seed == 7 and config.data.batch_size > 0


def test_a_file_may_import_its_neighbors(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    folder = tmp_path / "experiments_of_a_user"
    folder.mkdir()
    (folder / "shared.py").write_text("SIZE = 5\n")
    text = "from experiments_of_a_user import shared\n" + FILE
    path = write(folder, text.format(arguments="", value='" * 0 + "x" * shared.SIZE + "'))
    before = list(sys.path)
    assert configs.load_config(path).size == "xxxxx"
    assert sys.path == before


def test_json_round_trip_with_tuples_and_placeholders(config):
    config.nested = ((1, 2), (0.5, "a"))
    back = configs.from_json(configs.to_json(config))
    assert isinstance(back, ConfigDict) and isinstance(back.optimizer.layers, ConfigDict)
    assert back.to_dict() == config.to_dict()
    assert back.mean == (0.5, 0.4) and back.nested == ((1, 2), (0.5, "a"))
    assert back.optimizer.clip is None
    assert configs.differences(config, back) == {}


def test_differences_name_paths_with_both_values(config):
    new = configs.from_json(configs.to_json(config))
    new.seed = 1
    new.mean = (0.5, 0.3)
    new.optimizer.layers.decay = 0.5
    new.optimizer.extra = 4
    del new["flag"]
    assert configs.differences(config, new) == {
        "flag": (True, None),
        "mean": ([0.5, 0.4], [0.5, 0.3]),
        "optimizer.extra": (None, 4),
        "optimizer.layers.decay": (1.0, 0.5),
        "seed": (0, 1),
    }
