"""Experiment files and command-line overrides: `FILE.py[:arg]` and `--config.key.path=value`.

A config file is Python with a function `get_config(arg)` that returns an `ml_collections`
ConfigDict; what follows the colon is the argument, the thing that changes most.
"""

import ast
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mae_jax import spec
from mae_jax.spec import nearest
from mae_jax.types import UserError

AUTO = "auto"
FOLLOW_DATA = ("method.args.mean", "method.args.std")
"""What may be `AUTO` in place of numbers, see `mae_jax.standardize`."""


def load_config(name: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """Reads a config file and applies overrides.

    Args:
        name: path, with ":arg" behind it if get_config takes an argument.
        overrides: each 'key.path=value'; the type of the value is that of what it replaces.

    Raises:
        UserError: no such file, a file without get_config, an unknown key, a wrong type.
    """
    config = _call(name, "get_config")
    for override in overrides:
        apply_override(config, override)
    return config


def load_configs(name: str, overrides: Iterable[str] = ()) -> dict[str, ConfigDict]:
    """Reads a file of experiments, whose function `get_configs(arg)` returns them by name, and
    applies overrides to each.

    Raises:
        UserError: as `load_config`.
    """
    configs = _call(name, "get_configs")
    for config in configs.values():
        for override in overrides:
            apply_override(config, override)
    return configs


def _call(name: str, function: str) -> Any:
    """What a function of a config file returns for 'PATH:arg'."""
    path, _, arg = name.partition(":")
    if not Path(path).is_file():
        raise UserError(f"there is no config file {path!r}: try configs/quickstart.py")
    module = _import(Path(path).absolute())
    if not hasattr(module, function):
        other = {"get_config": "get_configs", "get_configs": "get_config"}[function]
        way = {"get_config": "mae-jax train", "get_configs": "mae-jax sweep"}[other]
        hint = f": it is for `{way}`" if hasattr(module, other) else ""
        raise UserError(f"{path} has no function {function}(arg){hint}")
    takes_arg = bool(inspect.signature(getattr(module, function)).parameters)
    if arg and not takes_arg:
        raise UserError(f"{path} takes no argument, but {arg!r} was given after the colon")
    return spec.call(path, getattr(module, function), *([arg] if arg else []))


def _import(path: Path):
    """Runs a config file. It may import its neighbours: `from configs import common`."""
    found = importlib.util.spec_from_file_location(f"mae_jax_config_{path.stem}", path)
    module = importlib.util.module_from_spec(found)
    places = [str(path.parent.parent), str(Path.cwd())]
    sys.path[:0] = places
    try:
        found.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{path} is not Python: {error}") from error
    finally:
        for place in places:
            sys.path.remove(place)
    return module


def apply_override(config: ConfigDict, override: str) -> None:
    """Sets one value from 'key.path=value'.

    Raises:
        UserError: no such key (names the nearest), a section, or a value of another type.
    """
    path, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"--config.{override} needs a value: --config.{path}=VALUE")
    *parents, key = path.split(".")
    section = config
    for depth, parent in enumerate(parents):
        here = ".".join(parents[: depth + 1])
        if parent not in section:
            _no_such_key(section, here, parent)
        if not isinstance(section[parent], ConfigDict):
            raise UserError(f"config.{here} is not a section: it has no {key!r} in it")
        section = section[parent]
    if key not in section:
        _no_such_key(section, path, key)
    old = section[key]
    if isinstance(old, ConfigDict):
        raise UserError(f"config.{path} is a section: set one of its keys: {', '.join(old)}")
    if AUTO in (text, old) and path in FOLLOW_DATA:  # of no type of their own
        old = (0.5,)
        with section.ignore_type():
            section[key] = text if text == AUTO else _convert(text, old, path)
        return
    value = _convert(text, old, path)
    try:
        section[key] = value
    except TypeError as error:  # a placeholder knows its type
        kind = section.get_type(key).__name__
        raise UserError(f"config.{path}={text} is not of type {kind}") from error


def _no_such_key(section: ConfigDict, path: str, key: str):
    raise UserError(f"config.{path} does not exist{nearest(key, list(section))}")


def _convert(text: str, old: Any, path: str) -> Any:
    """The value that a text means where `old` stood."""
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval(text.capitalize() if text in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, float) and type(value) is int:
        return float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if old is not None and type(value) is not type(old):
        raise UserError(
            f"config.{path}={text} is not of type {type(old).__name__}; it is {old!r} "
            "in the config file"
        )
    return value


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON; tuples become lists."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """The inverse of `to_json`; lists become tuples."""

    def tuples(value):
        if isinstance(value, dict):
            return {key: tuples(item) for key, item in value.items()}
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    return ConfigDict(tuples(json.loads(text)))


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Path -> (old value, new value) of everything in which two configs differ; None if absent."""
    flat_old, flat_new = _flat(json.loads(to_json(old))), _flat(json.loads(to_json(new)))
    return {
        path: (flat_old.get(path), flat_new.get(path))
        for path in sorted({*flat_old, *flat_new})
        if flat_old.get(path) != flat_new.get(path)
    }


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
