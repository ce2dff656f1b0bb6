"""What ends a command on purpose. Imports nothing, so that a mistake is reported at once."""

PREEMPTED = 75
"""Exit code of a run that was told to stop: start it again to go on."""


class UserError(Exception):
    """A mistake that the user can correct: reported as one line, with exit code 2."""


class Preempted(BaseException):
    """The run was told to stop, and lost nothing: start it again to go on.

    Like KeyboardInterrupt no `Exception`: a handler may raise it anywhere, also where code takes
    any `Exception` for a damaged file.
    """
