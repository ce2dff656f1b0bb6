"""What the processes of a job decide together. Alone, a process agrees with itself at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.experimental import multihost_utils


def all_true(here: bool) -> bool:
    """Whether all processes say so."""
    return bool(np.all(multihost_utils.process_allgather(np.asarray(here))))


def from_first(value: bool) -> bool:
    """What the first process says: others may not see yet what it has written."""
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def raise_together(call: Callable[[], Any]) -> Any:
    """What a call returns if it succeeds in all processes; if it raises in one, all raise.

    Raises:
        OSError: it failed in another process only.
    """
    result = error = None
    try:
        result = call()
    except Exception as caught:  # whatever it is, the others must not wait for this process
        error = caught
    if not all_true(error is None):
        raise error or OSError("in another process")
    return result
