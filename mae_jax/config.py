"""Experiment files and command-line overrides: `FILE.py[:arg]` and `--config.key.path=value`.

A config file is Python with a function `get_config(arg)` that returns an `ml_collections`
ConfigDict. The text after the colon is its argument, for the value that changes most, such as the
model size. `experiment.py` finds and runs the file.
"""

import ast
import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from ml_collections.config_dict import FieldReference, RequiredValueError

from mae_jax import experiment
from mae_jax.errors import UserError, kind_of
from mae_jax.spec import MAX_FLOAT, nearest

SECTIONS: Mapping[str, Mapping[str, type]] = {
    "data": {"batch_size": int},
    "method": {"name": str, "args": ConfigDict},
    "init_from": {"path": str},
    "optimizer": {},
    "schedule": {},
    "mesh": {},
    "checkpoint": {},
    "log": {},
    "evals": {"every": int, "run": str},
}
"""The sections of an experiment, and the type of each value that several modules read. Every other
value is an argument of one function, which reports it if it is missing."""

AUTO = "auto"
FOLLOW_DATA = ("method.args.mean", "method.args.std")
"""Values that may be `AUTO` instead of numbers, see `mae_jax.standardize`."""


def load_config(name: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """Reads a config file and applies overrides.

    Args:
        name: path of a config file, or name of a built-in experiment; followed by ":arg" if
            get_config takes an argument.
        overrides: each 'key.path=value'; a value keeps the type of the old one.

    Raises:
        UserError: no such file, a file without get_config, an unknown key, a wrong type.
    """
    return load_changed(name, overrides)[0]


def load_changed(
    name: str, overrides: Iterable[str] = ()
) -> tuple[ConfigDict, dict[str, tuple[Any, Any]]]:
    """Reads a config file and applies overrides.

    Returns:
        The config, and path -> (value in the file, new value) of all values that the overrides
        changed, including derived ones.

    Raises:
        UserError: as `load_config`.
    """
    config = experiment.call(name, "get_config", _checked)
    before = _values(config)
    return _overridden(config, overrides), _changed(before, _values(config))


def load_configs(name: str, overrides: Iterable[str] = ()) -> dict[str, ConfigDict]:
    """Reads a file with `get_configs(arg)`, which returns experiments by name, and applies the
    overrides to each.

    Raises:
        UserError: as `load_config`.
    """
    configs = experiment.call(name, "get_configs", _all_checked)
    for config in configs.values():
        _overridden(config, overrides)
    return configs


def _all_checked(file: str, configs: Any) -> dict[str, ConfigDict]:
    """Checks the return value of get_configs."""
    if not isinstance(configs, Mapping) or not all(type(name) is str for name in configs):
        kind, expected = kind_of(configs), "it must return a dict, name -> ConfigDict"
        raise UserError(f"{file}: get_configs returned {kind}: {expected}")
    if not configs:
        raise UserError(f"{file}: get_configs returned no experiment")
    return {name: _checked(f"{file}, {name}", config) for name, config in configs.items()}


def _checked(file: str, config: Any) -> ConfigDict:
    """Checks the return value of get_config, unlocks it and turns its lists into tuples."""
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{file}: get_config returned {kind_of(config)}: it must return an "
            "ml_collections.ConfigDict, e.g. mae_jax.configs.common.base() with changes"
        )
    if isinstance(config, FrozenConfigDict):
        config = ConfigDict(config)
    _make_plain(config, file)
    return config


def _make_plain(config: ConfigDict, file: str, prefix: str = "config.") -> None:
    """Unlocks, and replaces in place the values that JSON would change; checks the keys."""
    if config.is_locked:
        config.unlock()
    for key, value in list(config.items(preserve_field_references=True)):
        path = f"{prefix}{key}"
        if type(key) is not str or not key or "." in key:
            raise UserError(f"{file}: {path}: a key must be a text without a dot, not {key!r}")
        if isinstance(value, FieldReference):
            continue  # computed from others, or set by overrides: checked when these are known
        plain = ConfigDict(value) if isinstance(value, FrozenConfigDict) else _plain(value)
        if isinstance(plain, ConfigDict):
            _make_plain(plain, file, f"{path}.")
        if plain is not value:
            del config[key]  # or the new value would be cast to the old one's type
            config[key] = plain


def _plain(value: Any) -> Any:
    """Turns lists into tuples, and NumPy scalars into Python numbers."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _overridden(config: ConfigDict, overrides: Iterable[str]) -> ConfigDict:
    """Applies the overrides in place and checks every value. Returns the config."""
    for override in overrides:
        apply_override(config, override)
    for key, value in _leaves(config):
        if value is ...:
            raise UserError(f"config.{key} is required: give --config.{key}=VALUE")
        for item in _items(value):
            if type(item) is float and not abs(item) <= MAX_FLOAT:  # nor NaN
                raise UserError(f"config.{key}={value!r} must be finite in float32")
            if item is not None and type(item) not in (bool, int, float, str):
                raise UserError(
                    f"config.{key}={value!r} holds {kind_of(item)}: a config holds "
                    "numbers, texts, True, False, None, tuples of these, and sections"
                )
    return config


def _items(value: Any) -> list:
    """The items of a tuple, nested ones flattened; a list of one for any other value."""
    if not isinstance(value, (list, tuple)):
        return [value]
    return [item for part in value for item in _items(part)]


def _leaves(config: ConfigDict, prefix: str = "") -> list[tuple[str, Any]]:
    """Path and value of everything but sections; `...` for a required value that is not set."""
    leaves = []
    for key in config:
        try:
            value = config[key]
        except RequiredValueError:
            value = ...
        except Exception as error:  # raised by a function of other values in the config file
            text = f"{type(error).__name__}: {error}"
            raise UserError(f"config.{prefix}{key} cannot be computed: {text}") from error
        inside = isinstance(value, ConfigDict)
        leaves += _leaves(value, f"{prefix}{key}.") if inside else [(prefix + key, value)]
    return leaves


def check_sections(config: ConfigDict, file: str = "") -> None:
    """Raises UserError unless an experiment has every section and value of `SECTIONS`.

    Args:
        config: the experiment.
        file: name of its file, for messages.
    """
    where = f"{file}: config" if file else "config"
    way = "start from mae_jax.configs.common.base(), which has all sections"
    for name, values in SECTIONS.items():
        if name not in config:
            raise UserError(f"{where} has no section {name!r}: {way}")
        if not isinstance(config[name], ConfigDict):
            raise UserError(
                f"{where}.{name}={config[name]!r} must be a section (a ConfigDict): {way}"
            )
        for key, kind in values.items():
            if key not in config[name]:
                raise UserError(f"{where}.{name} has no {key!r}: {way}")
            value = config[name][key]
            if type(value) is not kind:
                what = "a section" if kind is ConfigDict else f"of type {kind.__name__}"
                raise UserError(f"{where}.{name}.{key}={value!r} must be {what}")


def apply_override(config: ConfigDict, override: str) -> None:
    """Sets one value from 'key.path=value'.

    Raises:
        UserError: no such key (names the nearest), a section, or a value of another type.
    """
    path, equals, text = override.partition("=")
    if not path.strip("."):
        raise UserError(f"--config.{override} names no key: write --config.key.path=value")
    if not equals:
        raise UserError(f"--config.{override} needs a value: --config.{path}=VALUE")
    *parents, key = path.split(".")
    section = config
    for depth, parent in enumerate(parents):
        prefix = ".".join(parents[: depth + 1])
        if parent not in section:
            _no_such_key(section, prefix, parent)
        if not isinstance(section[parent], ConfigDict):
            raise UserError(f"config.{prefix} is not a section: it has no {key!r} in it")
        section = section[parent]
    if key not in section:
        _no_such_key(section, path, key)
    try:
        old = section[key]
    except RequiredValueError:
        old = None
    if isinstance(old, ConfigDict):
        raise UserError(f"config.{path} is a section: set one of its keys: {', '.join(old)}")
    field = dict(section.items(preserve_field_references=True))[key]
    kind = field.get_type() if isinstance(field, FieldReference) else type(old)
    if AUTO in (text, old) and path in FOLLOW_DATA:  # a text or a tuple: not checked by type
        with section.ignore_type():
            section[key] = text if text == AUTO else _convert(text, tuple, path, (0.5,))
        return
    section[key] = _convert(text, kind, path, old)


def _no_such_key(section: ConfigDict, path: str, key: str):
    hint = nearest(key, list(section)) if len(section) else ": its section is empty"
    raise UserError(f"config.{path} does not exist{hint}")


def _convert(text: str, kind: type, path: str, old: Any) -> Any:
    """Parses the text of an override as a value of type `kind`; `old` is None if none is set."""
    if kind is str and not (old is None and text in ("none", "None")):
        if text == "None":
            raise UserError(f"config.{path}=None: leave it empty instead, --config.{path}=")
        return text
    try:
        value = ast.literal_eval(text.capitalize() if text in ("true", "false", "none") else text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    if kind is float and (value is text or type(value) is int):
        with contextlib.suppress(ValueError):  # 'nan' and 'inf' are no literals
            value = float(text)
    if type(value) is float and not abs(value) <= MAX_FLOAT:
        raise UserError(f"config.{path}={text} must be finite in float32")
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    unset = old is None and (value is None or kind is type(None))
    if type(value) is not kind and not unset:
        way = f": write a tuple, such as ({value!r},)" if kind is tuple else ""
        way += f", or {AUTO}" if path in FOLLOW_DATA else ""
        known = f"is not of type {kind.__name__}; it is {old!r} in the config file"
        raise UserError(f"config.{path}={text} {known}{way}")
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
    """Path -> (old value, new value) of every value that differs; None if absent."""
    return _changed(_values(old), _values(new))


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    paths = sorted({*old, *new})
    pairs = {path: (old.get(path), new.get(path)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def _values(config: ConfigDict) -> dict[str, Any]:
    """Path -> value as in JSON: tuples as lists, None for required values that are not set."""
    return {path: None if value is ... else _listed(value) for path, value in _leaves(config)}


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value
