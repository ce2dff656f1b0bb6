"""Decisions that all processes of a job take together; trivial for a single process."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.experimental import multihost_utils


def all_true(here: bool) -> bool:
    """Whether the value is true in all processes."""
    return bool(np.all(multihost_utils.process_allgather(np.asarray(here))))


def from_first(value: bool) -> bool:
    """The value in process 0, e.g. about a file that others may not see yet."""
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def raise_together(call: Callable[[], Any]) -> Any:
    """Calls a function in all processes and returns its result; if it raises in one, all raise.

    Raises:
        OSError: the call failed in another process only.
    """
    result = error = None
    try:
        result = call()
    except Exception as caught:  # of any type, as the others must not wait for this process
        error = caught
    if not all_true(error is None):
        raise error or OSError("in another process")
    return result
