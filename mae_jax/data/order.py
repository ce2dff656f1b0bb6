"""Indices and seeds of the examples of a step, as pure functions of (seed, step).

The training set is an endless stream of epochs, each in its own random order. Step s reads the
positions [s * B, (s + 1) * B) of the stream, whatever the number of processes. No state is stored,
so a run resumes at any step at once; batches may span two epochs, and no example is dropped.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mae_jax.data.random import hash_words, permute

ORDER, EXAMPLE, _COPY = 1, 2, 3
"""Numbers of random streams; `sampling` has 5 to 7."""


class Rows(NamedTuple):
    """The rows of one batch that one process loads."""

    indices: np.ndarray
    """[b] int64: indices of the examples in the source."""
    seeds: np.ndarray
    """[b] uint64: seed of each row, a function of (seed, epoch, example) and of the copy."""
    repeats: int = 1
    """Number of copies of each example, in adjacent rows."""


Stream = Callable[[np.ndarray, int], Rows]
"""(positions [b] int64 in the endless stream of examples, seed) -> their rows; see `sampling`."""


def training_rows(
    step: int,
    *,
    seed: int,
    num_examples: int,
    batch_size: int,
    repeats: int = 1,
    process_index: int = 0,
    process_count: int = 1,
    stream: Stream | None = None,
) -> Rows:
    """The rows of the global batch at `step` that belong to a process.

    With R repeats, a batch has batch_size / R examples, and R rows of each with seeds of their own.
    The first of them is the row without repeats. All R rows belong to one process, which reads the
    example once.

    Args:
        step: step, from 0.
        seed: seed of the run.
        num_examples: size of the training set.
        batch_size: global batch size, divisible by `process_count` times `repeats`.
        repeats: rows of each example.
        process_index: this process.
        process_count: number of processes.
        stream: the stream of examples; None: epochs of all examples, each in its own random order.
    """
    rows = batch_size // repeats // process_count
    first = step * (batch_size // repeats) + process_index * rows
    positions = np.arange(first, first + rows)
    if stream is not None:
        indices, one, _ = stream(positions, seed)
        seeds = [one, *(hash_words(_COPY, one, copy) for copy in range(1, repeats))]
    else:
        epochs, positions = np.divmod(positions, num_examples)
        indices = permute(positions, num_examples, hash_words(ORDER, seed, epochs))
        seeds = [hash_words(EXAMPLE, seed, epochs, indices)]  # [rows] for each copy
        seeds += [hash_words(_COPY, seed, epochs, indices, copy) for copy in range(1, repeats)]
    return Rows(np.repeat(indices, repeats), np.stack(seeds, axis=1).ravel(), repeats)


def evaluated(num_examples: int, limit: int | None = None) -> np.ndarray:
    """Indices [n] of the examples of an evaluation of at most `limit` of them, as `Data.eval` reads
    them; see `limited`.
    """
    count = min(limit or num_examples, num_examples)
    return limited(np.arange(count), count, num_examples)


def evaluation_rows(
    step: int,
    *,
    num_examples: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of one pass in order: indices [b], and `valid` [b] bool, False where the last batch
    is padded with the last example; see `training_rows`.
    """
    rows = batch_size // process_count
    first = step * batch_size + process_index * rows
    positions = np.arange(first, first + rows)
    return np.minimum(positions, num_examples - 1), positions < num_examples


def limited(
    positions: np.ndarray, count: int, num_examples: int, shuffled: bool = False
) -> np.ndarray:
    """Indices of the examples at positions [b] of an evaluation of `count` of them: all in order,
    or a part that a fixed permutation spreads over them; by that permutation if `shuffled`.
    """
    part = count < num_examples or shuffled
    return permute(positions, num_examples, 0) if part else positions
