"""Extensions: the user's own modules, named in a config like the library's.

A name with a dot that does not begin with a package of the library, e.g. 'my_project.my_mask', is a
module on the Python path, never an attribute of one; its `make` is called. The current folder is on
the path of every command and of the processes it starts.

Importing a module runs it. So modules are imported if a config, the command line or the workdir of
a run names them, and never if imported weights do: see `workdir.read_config`.
"""

import contextlib
import functools
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mae_jax.errors import Preempted, UserError, kind_of


def add_current_folder() -> None:
    """Appends the current folder to the Python path, as `python -m` does and a script does not. At
    the end, so that its files do not hide installed modules.
    """
    with contextlib.suppress(FileNotFoundError):  # it may have been deleted
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())


def find_make(name: str) -> Callable:
    """The `make` function of an extension module.

    Args:
        name: name of the module, with at least one dot.

    Raises:
        UserError: the module does not exist, fails on import, or has no `make`.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{name!r} is not a module name: write FOLDER.FILE, without .py")
    module = _import(name)
    make = vars(module).get("make")
    if not callable(make):
        file = module.__file__ or f"a folder; {_siblings(module)}"
        raise UserError(f"{name} has no function make ({file}): define make(...)")

    @functools.wraps(make)
    def explained(*args, **kwargs):
        with _explained(name):
            return make(*args, **kwargs)

    return explained


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns any exception of a user's module into a one-line UserError; UserErrors, `Preempted`
    and Ctrl-C pass through.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, Preempted):
        raise
    except BaseException as error:  # a module's own exceptions may derive from it directly
        raise UserError(_fault(name, error)) from error


def check_made(made: Any, kind: type, name: str) -> Any:
    """Returns what a `make` returned if it is an instance of `kind`.

    Raises:
        UserError: it is not.
    """
    if not isinstance(made, kind):
        raise UserError(
            f"{name}: make returned {kind_of(made)}, and must return a "
            f"{kind.__module__}.{kind.__name__}"
        )
    return made


def _import(name: str) -> ModuleType:
    with _explained(name):
        try:
            # What a module prints goes to stderr, as a command's output may be JSON.
            with _current_folder_first(), contextlib.redirect_stdout(sys.stderr):
                return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if f"{name}.".startswith(f"{error.name}."):  # the module itself, or a parent package
                raise UserError(_missing(name, error.name)) from error
            raise


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    """Puts the current folder first, so that no installed package hides the user's."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)  # the first occurrence; paths that the module added stay


def _missing(name: str, missing: str) -> str:
    """The message for a module that does not exist, or whose parent package does not."""
    above, _, leaf = missing.rpartition(".")
    if not above:
        return (
            f"no module {name!r} on the Python path, which is the current folder, {os.getcwd()}, "
            "and the installed packages"
        )
    parent = sys.modules[above]
    if parent.__spec__.submodule_search_locations is None:
        return f"{name!r} is not a module but an attribute: write {above}, whose make is called"
    folder = parent.__spec__.submodule_search_locations[0]
    return f"no module {leaf!r} in {above} ({folder}); {_siblings(parent)}"


def _siblings(package: ModuleType) -> str:
    """The modules in a package, in words."""
    folders = package.__spec__.submodule_search_locations
    names = sorted(module.name for module in pkgutil.iter_modules(folders))
    return f"its modules are {', '.join(names)}" if names else "there are no modules in it"


def _fault(name: str, error: BaseException) -> str:
    """'FILE, line 7: message' for a failing module: the last line of the user's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename not in _LOADERS
    ]
    # The error may come from deep in a library: report the last frame of the user's own code.
    users = [f for f in frames if Path(f.filename).is_relative_to(Path(frames[0].filename).parent)]
    line = f"{users[-1].filename}, line {users[-1].lineno}" if users else name
    kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
    return f"{line}: {kind}{error}"


_LOADERS = (__file__, importlib.__file__)
