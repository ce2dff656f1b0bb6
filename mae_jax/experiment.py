"""Config files: which one `--config` names, and what its function returns.

`--config FILE.py[:ARG]` is a file of the user's; `--config NAME[:ARG]` is an experiment that comes
with the library, `mae_jax/configs/NAME.py`. Whatever goes wrong in a file is reported in one line
that names the file and the line.
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
"""The folder of the experiments that come with the library."""
COMMANDS = {"get_config": "mae-jax train", "get_configs": "mae-jax sweep"}
"""The function of a config file, and the command that calls it."""
BY_POSITION = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def shipped() -> list[str]:
    """The names of the experiments that come with the library."""
    parts = ("__init__", "common")
    return sorted(path.stem for path in SHIPPED.glob("*.py") if path.stem not in parts)


def find(name: str) -> tuple[Path, str]:
    """The file that 'FILE.py:ARG' or 'NAME:ARG' names, and the argument; a file that exists wins.

    Raises:
        UserError: there is no such file, or it is no Python file.
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
            f"there is no config file {text!r} here: the one that comes with the library is "
            f"--config {path.stem}{name[len(text) :]}"
        )
    known = nearest(text, shipped())
    raise UserError(f"there is no config file {text!r}, and no experiment of that name{known}")


def _or_shipped() -> str:
    return f"or name an experiment: {', '.join(shipped())}"


def notes(name: str) -> list[str]:
    """What to report about a config that was loaded: the file of one that was given by name, and
    modules that it imported from the library although the same ones, changed, are beside it.
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
    """What a function of a config file returns.

    Args:
        name: 'FILE.py:ARG' or 'NAME:ARG'.
        function: 'get_config' or 'get_configs'.
        check: (name of the file, what the function has returned) -> what is returned here.

    Raises:
        UserError: anything that the file does but to return what `check` accepts.
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
            raise UserError(f"{path}: {function} is no function, but {kind_of(get)}")
        arguments = [arg] if arg else []
        _check_arguments(path, function, get, arguments)
        return check(str(path), get(*arguments))


def _check_arguments(path: Path, function: str, get: Callable, arguments: list[str]) -> None:
    """Raises UserError unless the function can be called with what follows the colon."""
    try:
        known = inspect.signature(get).parameters.values()
    except ValueError:  # some functions of C have none
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
                f"{path}: {function} needs the argument {needed[0].name!r}: --config FILE:ARGUMENT"
            )
    elif needed:
        names = ", ".join(p.name for p in needed)
        raise UserError(
            f"{path}: {function} needs the arguments {names}; it is called with one at most, what "
            "follows the colon in --config FILE:ARGUMENT: give the others default values"
        )


@contextlib.contextmanager
def _imports_from(path: Path):
    """A config file may import its neighbors, by the name of their folder, and what is in the
    current folder.
    """
    before = list(sys.path)
    above = path.absolute().parent.parent
    # Within the library's own folder, its modules would hide others of the same names.
    places = [] if above == SHIPPED.parent else [str(above)]
    sys.path[:0] = [*places, str(Path.cwd())]
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _explained(path: Path):
    """Turns whatever a config file raises into one line; Ctrl-C passes."""
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
            f"{_place(path, error)}: it ends the command with SystemExit({error.code!r}): a config "
            "file must return a config, or raise mae_jax.errors.UserError with the reason"
        ) from error
    except ImportError as error:
        hint = _import_hint(error)
        raise UserError(f"{_place(path, error)}: {error}{hint}") from error
    except BaseException as error:  # what a file raises may derive from it directly
        raise UserError(f"{_place(path, error)}: {type(error).__name__}: {error}") from error


def _place(path: Path, error: BaseException) -> str:
    """'FILE, line 7': the last line of the file that ran."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _import_hint(error: ImportError) -> str:
    """For files from before the experiments were part of the package: `from configs import`."""
    if (error.name or "").partition(".")[0] != "configs":
        return ""
    return ": the library's own are in `mae_jax.configs`: from mae_jax.configs import common"


def _execute(path: Path) -> types.ModuleType:
    """Runs a config file as it is now: bytecode from before, which Python tells by size and second,
    is not used.
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
