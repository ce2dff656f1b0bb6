"""The input pipeline in plain threads: no TensorFlow. The work is done in chunks of a batch, so
that large batches use all threads and small ones are made ahead.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from mae_jax.data.loader import Loader
from mae_jax.data.order import Rows

CHUNK = 32
"""Largest number of examples that a thread makes at a time."""

_AHEAD = 2  # batches that are under way at least


def batches(
    loader: Loader, rows_at: Callable[[int], Rows], steps: Iterator[int], workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of these steps, in order, made ahead by threads.

    Args:
        loader: makes examples.
        rows_at: step -> which examples, and their seeds.
        steps: which batches.
        workers: number of threads.
    """
    pending: deque[tuple[dict, list[Future]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for step in steps:
            pending.append(_start(pool, loader, rows_at(step)))
            chunks = len(pending[-1][1])
            if len(pending) > max(_AHEAD, -(-2 * workers // chunks)):
                yield _finish(*pending.popleft())
        while pending:
            yield _finish(*pending.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(pool: ThreadPoolExecutor, loader: Loader, rows: Rows) -> tuple[dict, list[Future]]:
    """A batch that is being filled."""
    batch = loader.buffers(len(rows.indices))
    futures = []
    for first in range(0, len(rows.indices), CHUNK):
        part = slice(first, first + CHUNK)
        out = {name: values[part] for name, values in batch.items()}
        futures.append(pool.submit(loader.load, Rows(rows.indices[part], rows.seeds[part]), out))
    return batch, futures


def _finish(batch: dict, futures: list[Future]) -> dict:
    for future in futures:
        future.result()
    return batch
