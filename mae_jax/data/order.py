"""Which examples a step sees, and the randomness of each: pure functions of (seed, step).

The training set is an endless stream of epochs, each in its own order; step s takes the positions
[s * B, (s + 1) * B) of it, whatever the number of processes. Nothing is stored and nothing is
skipped: a run may start at any step at once, and epochs join without a gap.
"""

from typing import NamedTuple

import numpy as np

from mae_jax.data.random import hash_words, permute

_ORDER, _EXAMPLE = 1, 2


class Rows(NamedTuple):
    """The rows of one batch that one process loads."""

    indices: np.ndarray
    """[b] int64: which examples of the source."""
    seeds: np.ndarray
    """[b] uint64: the randomness of each, a function of (seed, epoch, example)."""


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
        step: from 0.
        seed: of the run.
        num_examples: size of the training set.
        batch_size: of the global batch, divisible by `process_count`.
    """
    rows = batch_size // process_count
    first = step * batch_size + process_index * rows
    epochs, places = np.divmod(np.arange(first, first + rows), num_examples)
    indices = permute(places, num_examples, hash_words(_ORDER, seed, epochs))
    return Rows(indices, hash_words(_EXAMPLE, seed, epochs, indices))


def evaluation_rows(
    step: int,
    *,
    num_examples: int,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The same for one pass in order: indices [b], and a mask [b] that is False where the last
    batch is padded (with the last example again).
    """
    rows = batch_size // process_count
    first = step * batch_size + process_index * rows
    places = np.arange(first, first + rows)
    return np.minimum(places, num_examples - 1), places < num_examples
