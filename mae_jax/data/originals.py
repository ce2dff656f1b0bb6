"""The examples of a split as their source has them, upright and not transformed, for evaluations at
the original size of each image.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mae_jax.data.fields import space_of
from mae_jax.data.loader import Loader

AHEAD = 4
"""Chunks that each thread reads ahead."""
CHUNK = 16
"""Examples that a thread reads at a time."""

Original = dict[str, Any] | None
"""Fields of an example, images and masks decoded; None: it cannot be read, and is skipped."""


def sizes(loader: Loader, count: int, workers: int) -> np.ndarray:
    """[count, rank] sizes of all images of a source but the channels, of JPEGs from their headers;
    zeros where an image cannot be read and is skipped.

    Args:
        loader: of the source.
        count: number of its examples.
        workers: number of threads.
    """
    chunks = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]

    def shapes(indices: Sequence[int]) -> list[tuple[int, ...] | None]:
        examples = (loader.original(index) for index in indices)
        return [None if e is None else space_of(e["image"]) for e in examples]

    found = [shape for shapes_ in _mapped(shapes, chunks, workers) for shape in shapes_]
    rank = next((len(shape) for shape in found if shape is not None), 2)
    return np.array([shape or (0,) * rank for shape in found], int).reshape(count, rank)


def read(
    loader: Loader,
    batches: Sequence[Sequence[int | None]],
    workers: int,
    decoded: bool = True,
) -> Iterator[list[Original]]:
    """The examples of batches of indices; None stays None.

    Args:
        loader: of the source.
        batches: of indices, each as large as the caller likes.
        workers: number of threads.
        decoded: False: images stay as the source has them.
    """
    one = lambda index: None if index is None else loader.original(index, decoded=decoded)
    places = [index for batch in batches for index in batch]
    examples = _mapped(one, places, workers)
    for batch in batches:
        yield [next(examples) for _ in batch]


def _mapped(function, items: Sequence[Any], workers: int) -> Iterator[Any]:
    """The results of a function for items, in order, computed ahead by threads."""
    pool, pending = ThreadPoolExecutor(workers), deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > AHEAD * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
