"""Checks of record files that stay open while a set is read."""

import os
import resource
from collections.abc import Sequence

from mae_jax.types import UserError

_SPARE_FILES = 256  # open files reserved for the rest of the program


def check_files(paths: Sequence[str]) -> None:
    """Raises UserError if a file is missing, or if the limit on open files is too low for all."""
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f"{path} is missing: prepare the set again")
    needed = len(paths) + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise UserError(f"the set needs {needed} open files, the limit is {hard}: raise ulimit -n")
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
