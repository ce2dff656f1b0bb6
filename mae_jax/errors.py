"""Exceptions that end a command on purpose. Nothing heavy is imported, for a fast error message."""

import difflib
from collections.abc import Collection
from typing import Any

PREEMPTED = 75
"""Exit code of a run that was preempted: run again to resume."""


class UserError(Exception):
    """A mistake that the user can correct: reported as one line, with exit code 2."""


class Preempted(BaseException):
    """The run was asked to stop and lost no work: run again to resume.

    Not an `Exception`, like KeyboardInterrupt: a signal handler may raise it anywhere, including
    code that treats any `Exception` as a damaged file.
    """


def nearest(name: str, known: Collection[str]) -> str:
    """The end of an error message: the known name that is closest to `name`, or all of them."""
    if not known:
        return ": there is nothing to choose from"
    close = difflib.get_close_matches(name, list(known), n=1)
    return f": did you mean {close[0]!r}?" if close else f": choose {', '.join(sorted(known))}"


def kind_of(value: Any) -> str:
    """The type of a value, for messages."""
    return "None" if value is None else f"a value of type {type(value).__name__}"
