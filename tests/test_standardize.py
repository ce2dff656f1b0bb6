"""Mean and standard deviation of the pixels: given, measured, recorded, or unknown."""

import inspect

import pytest

from mae_jax import standardize
from mae_jax.config import load_config
from mae_jax.methods import make_method
from mae_jax.ops.pixels import IMAGENET_MEAN, IMAGENET_STD
from mae_jax.spec import maker
from mae_jax.types import UserError
from tests.helpers.tiny_args import NAMES

IMAGENET = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
GRAY = standardize.Origin("measured", lambda: dict(mean=(0.4,), std=(0.3,)))
COLOR = standardize.Origin("measured", lambda: dict(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
BLACK = standardize.Origin("measured", lambda: dict(mean=(0.0,), std=(0.0,)))
NONE = standardize.Origin("measured", lambda: {})


@pytest.mark.parametrize(
    ("args", "channels", "origins", "expected"),
    [
        (IMAGENET, 3, [COLOR], {}),  # runs on colors stay as they are
        (IMAGENET, 1, [GRAY], dict(mean=(0.4,), std=(0.3,))),
        (IMAGENET, 1, [NONE], dict(mean=(0.5,), std=(0.25,))),
        (IMAGENET, 4, [COLOR], dict(mean=(0.5,) * 4, std=(0.25,) * 4)),
        (IMAGENET, 1, [BLACK], dict(mean=(0.5,), std=(0.25,))),  # nothing can be divided by 0
        (IMAGENET, 1, [NONE, COLOR, GRAY], dict(mean=(0.4,), std=(0.3,))),
        (IMAGENET | dict(mean="auto"), 3, [COLOR], COLOR.values()),
        (IMAGENET | dict(std="auto"), 3, [COLOR], COLOR.values()),
        (dict(mean="auto", std=(0.2,)), 1, [GRAY], dict(mean=(0.4,))),
        (dict(mean=(0.2,), std="auto"), 1, [GRAY], dict(std=(0.3,))),
        (dict(mean=(0.5,), std=(0.25,)), 7, [GRAY], {}),  # one for all channels
        (dict(mean=(0.5,), std=IMAGENET_STD), 1, [GRAY], dict(std=(0.3,))),
        (dict(mean="auto", std="auto"), 3, [GRAY], dict(mean=(0.4,) * 3, std=(0.3,) * 3)),
        (dict(stride=4), 1, [GRAY], {}),  # colorization has none
    ],
)
def test_values_follow_the_data_where_they_do_not_fit(args, channels, origins, expected):
    found, note = standardize.resolve(args, channels=channels, origins=origins)
    assert found == expected
    assert all(f"{name}=({value[0]:g}," in note for name, value in expected.items()) or not note
    assert bool(note) == bool(found)


def test_a_wrong_number_of_values_for_colors_names_the_key():
    args = dict(mean=(0.1, 0.2), std=(0.5,))
    with pytest.raises(UserError, match=r"config\.method\.args\.mean has 2 values for 3 channels"):
        standardize.resolve(args, channels=3, origins=[COLOR])


@pytest.mark.parametrize("value", ["(0.5, 0.5, 0.5)", (float("nan"),), (), ("a",), "data"])
def test_what_is_neither_numbers_nor_auto_names_the_key(value):
    with pytest.raises(UserError, match=r"config\.method\.args\.std="):
        standardize.check(dict(mean="auto", std=value))


def test_every_method_takes_the_values():
    names = [name.removeprefix("methods.") for name in NAMES]
    for name in list(names):
        known = inspect.signature(maker(name, "methods")).parameters
        if "mean" in known:
            values, _ = standardize.resolve(IMAGENET, channels=1, origins=[GRAY])
            values |= {"vocabulary": 8} if "vocabulary" in known else {}
            method = make_method(name=name, args=values)
            assert (method.mean, method.std) == ((0.4,), (0.3,))
            names.remove(name)
    assert names == ["colorization"]


def test_auto_on_the_command_line_and_back(root):
    path = str(root / "tests" / "helpers" / "tiny.py")
    config = load_config(path, ["method.args.mean=auto", "method.args.std=(0.25,)"])
    assert (config.method.args.mean, config.method.args.std) == ("auto", (0.25,))
    config = load_config(path, ["method.args.mean=auto", "method.args.mean=(0.5, 0.4, 0.3)"])
    assert config.method.args.mean == (0.5, 0.4, 0.3)
    with pytest.raises(UserError, match="method.args.mask_ratio=auto is not of type float"):
        load_config(path, ["method.args.mask_ratio=auto"])
