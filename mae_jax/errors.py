"""What ends a command on purpose. Imports nothing heavy, so that a mistake is reported at once."""

import difflib
from collections.abc import Collection
from typing import Any

PREEMPTED = 75
"""Exit code of a run that was told to stop: start it again to go on."""


class UserError(Exception):
    """A mistake that the user can correct: reported as one line, with exit code 2."""


class Preempted(BaseException):
    """The run was told to stop, and lost nothing: start it again to go on.

    Like KeyboardInterrupt no `Exception`: a handler may raise it anywhere, also where code takes
    any `Exception` for a damaged file.
    """


def nearest(name: str, known: Collection[str]) -> str:
    """The end of an error message: the known name that is most like `name`, or all of them."""
    if not known:
        return ": there is nothing to choose from"
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else f": choose {', '.join(sorted(known))}"


def kind_of(value: Any) -> str:
    """What a value is, for messages."""
    return "None" if value is None else f"a value of type {type(value).__name__}"
