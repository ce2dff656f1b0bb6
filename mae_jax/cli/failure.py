"""Errors as the user sees them: one line and an exit code."""

import errno
import os
import sys

from mae_jax.errors import PREEMPTED, Preempted, UserError

FIXABLE = (
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
"""Errors of the file system that the user can fix."""


def fail(message: str, code: int) -> int:
    """Prints an error in one line to stderr. Returns the exit code."""
    print("mae-jax: " + " ".join(message.split()), file=sys.stderr)
    return code


def explain(error: BaseException) -> tuple[int, str | None]:
    """The exit code of an exception, and its message in one line; None if a traceback is needed."""
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, OSError) and error.errno in FIXABLE:
        return 2, f"{_reason(error)}: {error.filename or 'while writing'}"
    if isinstance(error, Preempted):
        return PREEMPTED, f"{error}: run again to resume"
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped by Ctrl-C"
    if isinstance(error, SystemExit):
        return 1, f"exited with code {error.code} before the other processes"
    return 1, None


def _reason(error: OSError) -> str:
    """The reason of a file-system error, in words."""
    if error.errno == errno.EEXIST and error.filename is not None:  # a folder cannot be created
        path = os.fsdecode(error.filename)
        if os.path.islink(path) and not os.path.exists(path):
            return f"this is a link to {os.readlink(path)}, which does not exist"
        if os.path.isfile(path):
            return "this is a file, and a folder is needed"
    return error.strerror
