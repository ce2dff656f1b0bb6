"""Moves batches to the devices ahead of the steps that need them."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import Any

from mae_jax.types import Batch

AHEAD = 2
"""Batches on the devices beside the one in use: one ready, one on its way."""


def prefetch(
    batches: Generator[Mapping[str, Any]], put: Callable[[Mapping[str, Any]], Batch]
) -> Generator[Batch]:
    """The same batches as global arrays. Transfers are asynchronous: while a step runs, the next
    batch is there already and the one after it is being moved.

    Args:
        batches: rows of this process; closed at the end.
        put: starts a transfer.
    """
    ready: deque[Batch] = deque()
    with contextlib.closing(batches):
        for batch in batches:
            ready.append(put(batch))
            if len(ready) > AHEAD:
                yield ready.popleft()
        yield from ready
