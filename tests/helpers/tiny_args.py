"""All methods and tasks of the package, and for each the tiny arguments that its tests take from
tests/methods/tiny or tests/tasks/tiny: a new one is found, and asked for them.
"""

import dataclasses
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping

import pytest

from mae_jax import methods, tasks
from mae_jax.spec import resolve
from mae_jax.types import Method

VIT = "vit(width=16, depth=1, heads=2, patch=4)"
CONV = "convnext(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)"

NAMES = [
    name
    for package in (methods, tasks)
    for found in pkgutil.iter_modules(package.__path__)
    if "make" in vars(resolve(name := f"{package.__name__.partition('.')[2]}.{found.name}"))
]
"""'methods.mae', 'tasks.finetune' and so on; modules that others share make nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiny:
    """What a file tests/methods/tiny/NAME.py or tests/tasks/tiny/NAME.py has."""

    ARGS: Mapping
    """Arguments of its `make` with which it compiles in seconds, and learns on four images."""
    IMAGE: tuple[int, ...] = (16, 12, 3)
    """Shape of its images."""
    COSTLY: bool = False
    """True: it takes so long to compile that only thorough tests run it."""
    LEARNS: bool = True
    """False: it uses networks as they are, and its loss raises UserError."""
    OTHERS: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)
    """More arguments to test, by a word for them: what differs from ARGS. Without any, those that
    have an encoder are tested with a convolutional one by slow and by thorough tests."""
    RARE: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)
    """As OTHERS, but for thorough tests only."""


def tiny(name: str) -> Tiny:
    """That of 'methods.mae' or the like. If missing, the test fails and says what to write."""
    package, leaf = name.split(".")
    module = f"tests.{package}.tiny.{leaf}"
    if importlib.util.find_spec(module) is None:
        pytest.fail(
            f"mae_jax/{package}/{leaf}.py needs tiny arguments to be tested with: write "
            f"tests/{package}/tiny/{leaf}.py with ARGS = dict(...), small arguments of its make; "
            "for what else it may say see tests/helpers/tiny_args.py"
        )
    found = vars(importlib.import_module(module))
    known = [field.name for field in dataclasses.fields(Tiny)]
    return Tiny(**{key: found[key] for key in known if key in found})


def make_tiny(name: str, **changes) -> Method:
    """A method of 30 steps with its tiny arguments, but for some changes."""
    method = resolve(name).make(**{**tiny(name).ARGS, **changes})
    return dataclasses.replace(method, total_steps=30)
