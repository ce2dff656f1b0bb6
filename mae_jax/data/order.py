"""Indices and seeds of the examples of a step, as pure functions of (seed, step).

The training set is an endless stream of epochs, each in its own random order. Step s reads the
positions [s * B, (s + 1) * B) of the stream, whatever the number of processes. No state is stored,
so a run resumes at any step at once; batches may span two epochs, and no example is dropped.
"""

from typing import NamedTuple

import numpy as np

from mae_jax.data.random import hash_words, permute

_ORDER, _EXAMPLE = 1, 2


class Rows(NamedTuple):
    """The rows of one batch that one process loads."""

    indices: np.ndarray
    """[b] int64: indices of the examples in the source."""
    seeds: np.ndarray
    """[b] uint64: seed of each example, a function of (seed, epoch, example)."""


def training_rows(
    step: int,
    *,
    seed: int,
    num_examples: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Rows:
    """The rows of the global batch at `step` that belong to a process.

    Args:
        step: step, from 0.
        seed: seed of the run.
        num_examples: size of the training set.
        batch_size: global batch size, divisible by `process_count`.
        process_index: this process.
        process_count: number of processes.
    """
    rows = batch_size // process_count
    first = step * batch_size + process_index * rows
    epochs, positions = np.divmod(np.arange(first, first + rows), num_examples)
    indices = permute(positions, num_examples, hash_words(_ORDER, seed, epochs))
    return Rows(indices, hash_words(_EXAMPLE, seed, epochs, indices))


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
