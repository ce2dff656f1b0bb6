"""Finds the config file that `--config` names, and calls its function.

`--config FILE.py[:ARG]` is the user's file; `--config NAME[:ARG]` is a built-in experiment,
`mae_jax/configs/NAME.py`. Any error in a file is reported in one line with the file and line
number.
"""

import contextlib
import inspect
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mae_jax
from mae_jax.errors import Preempted, UserError, kind_of
from mae_jax.spec import nearest

SHIPPED = Path(mae_jax.__file__).parent / "configs"
"""The folder of the built-in experiments."""
COMMANDS = {"get_config": "mae-jax train", "get_configs": "mae-jax sweep"}
"""The function of a config file, and the command that calls it."""
BY_POSITION = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def shipped() -> list[str]:
    """The names of the built-in experiments."""
    helpers = ("__init__", "common")
    return sorted(path.stem for path in SHIPPED.glob("*.py") if path.stem not in helpers)


def find(name: str) -> tuple[Path, str]:
    """Splits 'FILE.py:ARG' or 'NAME:ARG' into the path of the file and the argument. An existing
    file takes precedence over a built-in experiment.

    Raises:
        UserError: the file does not exist, or is not a Python file.
    """
    text, _, arg = name.partition(":")
    path = Path(text)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:
        raise UserError(f"--config {text}: {error.strerror}") from error
    if is_file and path.suffix != ".py":
        raise UserError(f"--config {text}: the name of a config file ends in .py, {_or_shipped()}")
    if is_file:
        return path, arg
    if text in shipped():
        return SHIPPED / f"{text}.py", arg
    if is_folder and text:
        raise UserError(f"--config {text} is a folder: give a config file in it, {_or_shipped()}")
    if path.stem in shipped() and path.suffix == ".py":
        raise UserError(
            f"there is no config file {text!r} here: for the built-in experiment, use "
            f"--config {path.stem}{name[len(text) :]}"
        )
    known = nearest(text, shipped())
    raise UserError(f"there is no config file or built-in experiment {text!r}{known}")


def _or_shipped() -> str:
    return f"or a built-in experiment: {', '.join(shipped())}"


def notes(name: str) -> list[str]:
    """Lines to report about a loaded config: the path of a built-in experiment; and each module
    imported from the library although the file's own folder has a modified copy.
    """
    path, _ = find(name)
    lines = [] if path == Path(name.partition(":")[0]) else [f"--config {name}: {path}"]
    for module in [name for name in sys.modules if name.startswith("mae_jax.configs.")]:
        used, beside = Path(sys.modules[module].__file__), path.parent / f"{module[16:]}.py"
        if path.parent.name != "configs" or not beside.is_file() or beside.samefile(used):
            continue
        if beside.read_bytes() != used.read_bytes():
            lines.append(
                f"{path} uses {used}, not {beside}, which differs: to use the files beside it, "
                f"pip install -e {path.absolute().parent.parent}"
            )
    return lines


def call(name: str, function: str, check: Callable[[str, Any], Any]) -> Any:
    """Runs a config file and calls its function.

    Args:
        name: 'FILE.py:ARG' or 'NAME:ARG'.
        function: 'get_config' or 'get_configs'.
        check: (name of the file, return value of the function) -> the checked value.

    Returns:
        The checked value.

    Raises:
        UserError: the file fails in any way, or `check` refuses the value.
    """
    path, arg = find(name)
    prints = contextlib.redirect_stdout(sys.stderr)  # stdout is the command's, e.g. for JSON
    with _imports_from(path), _explained(path), prints:
        module = _execute(path)
        get = vars(module).get(function)
        if get is None:
            (other,) = COMMANDS.keys() - {function}
            hint = f": it is for `{COMMANDS[other]}`" if other in vars(module) else ""
            raise UserError(f"{path} has no function {function}(arg){hint}")
        if not callable(get):
            raise UserError(f"{path}: {function} must be a function, and is {kind_of(get)}")
        arguments = [arg] if arg else []
        _check_arguments(path, function, get, arguments)
        return check(str(path), get(*arguments))


def _check_arguments(path: Path, function: str, get: Callable, arguments: list[str]) -> None:
    """Raises UserError unless the function can be called with the argument after the colon."""
    try:
        known = inspect.signature(get).parameters.values()
    except ValueError:  # some C functions have no signature
        return
    by_position = [p for p in known if p.kind in BY_POSITION]
    if arguments and not by_position:
        raise UserError(
            f"{path}: {function} takes no argument, but {arguments[0]!r} was given after the colon"
        )
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p for p in known if p.default is p.empty and p.kind not in optional]
    if len(needed) == 1 and needed == by_position[:1]:
        if not arguments:
            raise UserError(
                f"{path}: {function} needs the argument {needed[0].name!r}: --config FILE:ARG"
            )
    elif needed:
        names = ", ".join(p.name for p in needed)
        raise UserError(
            f"{path}: {function} needs the arguments {names}, but gets at most one, the text after "
            "the colon in --config FILE:ARG: give the others default values"
        )


@contextlib.contextmanager
def _imports_from(path: Path):
    """Lets a config file import its neighbors, as FOLDER.MODULE, and modules in the current
    folder.
    """
    before = list(sys.path)
    above = path.absolute().parent.parent
    # Not the library's own folder, whose modules would hide others of the same name.
    folders = [] if above == SHIPPED.parent else [str(above)]
    sys.path[:0] = [*folders, str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _explained(path: Path):
    """Turns any exception in a config file into a one-line UserError; Ctrl-C passes through."""
    try:
        yield
    except (UserError, KeyboardInterrupt, Preempted):
        raise
    except SyntaxError as error:
        if error.filename != str(path):
            raise UserError(f"{_place(path, error)}: {error}") from error
        raise UserError(f"{path} is not Python: {error}") from error
    except SystemExit as error:
        raise UserError(
            f"{_place(path, error)}: SystemExit({error.code!r}) would end the command: return a "
            "config, or raise mae_jax.errors.UserError with the reason"
        ) from error
    except ImportError as error:
        hint = _import_hint(error)
        raise UserError(f"{_place(path, error)}: {error}{hint}") from error
    except BaseException as error:  # a file's own exceptions may derive from it directly
        raise UserError(f"{_place(path, error)}: {type(error).__name__}: {error}") from error


def _place(path: Path, error: BaseException) -> str:
    """'FILE, line 7': the last line of the config file in the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _import_hint(error: ImportError) -> str:
    """A hint for older files, which wrote `from configs import`."""
    if (error.name or "").partition(".")[0] != "configs":
        return ""
    return ": the built-in experiments are in `mae_jax.configs`: from mae_jax.configs import common"


def _execute(path: Path) -> types.ModuleType:
    """Runs a config file from its source. Cached bytecode, which Python validates by size and by
    modification time in seconds only, is not used.
    """
    module = types.ModuleType(f"mae_jax_config_{path.stem}", None)
    module.__file__ = str(path.absolute())
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except (ValueError, RecursionError, MemoryError) as error:  # e.g. a null byte
        raise UserError(f"{path} is not Python: {error or type(error).__name__}") from error
    sys.modules[module.__name__] = module  # dataclasses look for their module there
    exec(code, module.__dict__)
    return module
