"""What a user is told when something goes wrong: one line, and an exit code."""

import errno
import os
import sys

from mae_jax.errors import PREEMPTED, Preempted, UserError

MENDABLE = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EPERM,
    errno.ETXTBSY,
    errno.EFBIG,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.ENOENT,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
)
"""What the user can do something about when the file system refuses."""


def fail(message: str, code: int) -> int:
    """Says in one line what went wrong."""
    print("mae-jax: " + " ".join(message.split()), file=sys.stderr)
    return code


def explain(error: BaseException) -> tuple[int, str | None]:
    """The exit code that an exception gives, and the line that says it; None if that cannot be said
    in a line.
    """
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, OSError) and error.errno in MENDABLE:
        return 2, f"{_reason(error)}: {error.filename or 'while writing'}"
    if isinstance(error, Preempted):
        return PREEMPTED, f"{error}: start again to go on"
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped by Ctrl-C"
    if isinstance(error, SystemExit):
        return 1, f"left with exit code {error.code}, before the others"
    return 1, None


def _reason(error: OSError) -> str:
    """Why the file system refuses."""
    if error.errno == errno.EEXIST and error.filename is not None:  # where a folder is to be
        path = os.fsdecode(error.filename)
        if os.path.islink(path) and not os.path.exists(path):
            return f"this is a link to {os.readlink(path)}, which does not exist"
        if os.path.isfile(path):
            return "this is a file, and a folder is needed"
    return error.strerror
