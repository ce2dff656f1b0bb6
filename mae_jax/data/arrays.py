"""The input pipeline on a thread pool, without TensorFlow. Work is split into chunks of a batch:
large batches use all threads, and small ones are prefetched.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from mae_jax.data.loader import Loader
from mae_jax.data.order import Rows

CHUNK = 32
"""Most rows that a thread loads at a time, unless an example has more."""

_AHEAD = 2  # batches in flight, at least


def batches(
    loader: Loader, rows_at: Callable[[int], Rows], steps: Iterator[int], workers: int
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of `steps`, in order, prefetched by threads.

    Args:
        loader: loads examples.
        rows_at: step -> indices and seeds of its examples.
        steps: steps of the batches.
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
    """A batch, and the futures of the chunks that fill it."""
    batch, size = loader.buffers(len(rows.indices)), chunk_size(rows.repeats)
    futures = []
    for first in range(0, len(rows.indices), size):
        part = slice(first, first + size)
        out = {name: values[part] for name, values in batch.items()}
        chunk = Rows(rows.indices[part], rows.seeds[part], rows.repeats)
        futures.append(pool.submit(loader.load, chunk, out))
    return batch, futures


def chunk_size(repeats: int) -> int:
    """Rows of a chunk: about `CHUNK`, and all copies of each of its examples."""
    return max(1, CHUNK // repeats) * repeats


def _finish(batch: dict, futures: list[Future]) -> dict:
    for future in futures:
        future.result()
    return batch
