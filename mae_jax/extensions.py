"""Extensions: modules of the user's own, named in a config like the library's.

A name with a dot that does not begin like one of the library's, 'my_project.my_mask', is a module
on the Python path, never an attribute of one; its `make` is called. The current folder is on that
path for every command and the processes that it starts.

Importing a module runs it. So names are imported if they stand in a config, on the command line or
in the workdir of a run, and never if they came with weights: see `workdir.read_config`.
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
    """Puts the current folder on the Python path, which `python -m` does and a script does not.
    At its end, so that no file there hides a library's.
    """
    with contextlib.suppress(FileNotFoundError):  # it may have been deleted
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())


def find_make(name: str) -> Callable:
    """The `make` of a module of the user's own.

    Args:
        name: of the module, with at least one dot.

    Raises:
        UserError: there is no such module, it fails while it is imported, or it has no `make`.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{name!r} is no name of a module: write FOLDER.FILE, without .py")
    module = _import(name)
    make = vars(module).get("make")
    if not callable(make):
        place = module.__file__ or f"a folder; {_siblings(module)}"
        raise UserError(f"{name} has no function make, which is what is called ({place})")

    @functools.wraps(make)
    def explained(*args, **kwargs):
        with _explained(name):
            return make(*args, **kwargs)

    return explained


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns whatever a user's module raises into one line; its own messages and Ctrl-C pass."""
    try:
        yield
    except (UserError, KeyboardInterrupt, Preempted):
        raise
    except BaseException as error:  # what a file raises may derive from it directly
        raise UserError(_fault(name, error)) from error


def check_made(made: Any, kind: type, name: str) -> Any:
    """What a `make` returned, if it is of a kind.

    Raises:
        UserError: it is not.
    """
    if not isinstance(made, kind):
        raise UserError(
            f"{name}: its make returned {kind_of(made)}, and must return a "
            f"{kind.__module__}.{kind.__name__}"
        )
    return made


def _import(name: str) -> ModuleType:
    with _explained(name):
        try:
            # The output of a command may be JSON.
            with _current_folder_first(), contextlib.redirect_stdout(sys.stderr):
                return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if f"{name}.".startswith(f"{error.name}."):  # itself, or a package that it is in
                raise UserError(_missing(name, error.name)) from error
            raise


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    """So that an installed package of the same name does not hide the user's."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)  # its first occurrence; what the module has added stays


def _missing(name: str, missing: str) -> str:
    """What is said of a module that there is not, or of a package above it."""
    above, _, leaf = missing.rpartition(".")
    if not above:
        return (
            f"no module {name!r} on the Python path: it is looked for in the current folder, "
            f"{os.getcwd()}, and in what is installed"
        )
    found = sys.modules[above]
    if found.__spec__.submodule_search_locations is None:
        return f"{name!r} is no module, but something in one: write {above}, whose make is called"
    folder = found.__spec__.submodule_search_locations[0]
    return f"no module {leaf!r} in {above} ({folder}); {_siblings(found)}"


def _siblings(package: ModuleType) -> str:
    """The modules in a package, in words."""
    places = package.__spec__.submodule_search_locations
    names = sorted(found.name for found in pkgutil.iter_modules(places))
    return f"its modules are {', '.join(names)}" if names else "there are no modules in it"


def _fault(name: str, error: BaseException) -> str:
    """'FILE, line 7: what is wrong', of a module that fails; the last line of the user's own."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and frame.filename not in _LOADERS
    ]
    # What fails may be deep in a library: the way out begins where the user's own code ends.
    own = [f for f in frames if Path(f.filename).is_relative_to(Path(frames[0].filename).parent)]
    place = f"{own[-1].filename}, line {own[-1].lineno}" if own else name
    kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
    return f"{place}: {kind}{error}"


_LOADERS = (__file__, importlib.__file__)
