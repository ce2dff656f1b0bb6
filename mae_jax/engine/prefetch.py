"""Moves batches to the devices ahead of the steps that need them."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import Any

from mae_jax.types import Batch

AHEAD = 2
"""Batches on the devices besides the one in use: one ready, one in transfer."""


def prefetch(
    batches: Generator[Mapping[str, Any]], put: Callable[[Mapping[str, Any]], Batch]
) -> Generator[Batch]:
    """Yields the batches as global arrays. Transfers are asynchronous: while a step runs, the next
    batch is on the devices already, and the one after it is in transfer.

    Args:
        batches: batches of this process's rows; closed at the end.
        put: starts the transfer of a batch.
    """
    ready: deque[Batch] = deque()
    with contextlib.closing(batches):
        for batch in batches:
            ready.append(put(batch))
            if len(ready) > AHEAD:
                yield ready.popleft()
        yield from ready
