"""Streams of training examples that are not uniform: balanced over classes, or by weights.

As in `order`, the example at a position of the stream is a function of (seed, position): no state
is stored, and any number of processes and any start read the same stream.
"""

import numpy as np

from mae_jax.data import subset as subsets
from mae_jax.data.order import EXAMPLE, ORDER, Rows, Stream
from mae_jax.data.random import hash_words, permute
from mae_jax.data.sources import Source
from mae_jax.types import UserError

SAMPLINGS = ("balanced", "weighted")
"""Values of `data.sampling` besides '': each example once an epoch."""

_CLASS, _MEMBER, _START = 5, 6, 7
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio's fraction, times 2**64


class Balanced:
    """Each class equally often: of any K consecutive positions from a multiple of K on, one is of
    each of the K classes. The examples of a class take turns: each comes once, in random order,
    before one of them comes again.

    Args:
        labels: [N] int, class of each example; examples below 0 have no class, and are left out.
    """

    def __init__(self, labels: np.ndarray):
        order = np.argsort(labels, kind="stable")
        self._members = order[np.searchsorted(labels[order], 0) :].astype(np.int32)
        _, self._counts = np.unique(labels[labels >= 0], return_counts=True)
        self._starts = np.cumsum(self._counts) - self._counts

    def __call__(self, positions: np.ndarray, seed: int) -> Rows:
        """The rows at positions [b]."""
        turns, places = np.divmod(positions, len(self._counts))
        classes = permute(places, len(self._counts), hash_words(_CLASS, seed, turns))
        passes, places = np.divmod(turns, self._counts[classes])
        keys = hash_words(_MEMBER, seed, classes, passes)
        members = self._starts[classes] + permute(places, self._counts[classes], keys)
        indices = self._members[members].astype(np.int64)
        return Rows(indices, hash_words(EXAMPLE, seed, passes, indices))


class Weighted:
    """Each example in proportion to its weight: N w / W times an epoch of N positions, rounded down
    or up (systematic sampling, Madow and Madow 1944). Epochs start at the points of the golden
    ratio's sequence, so that over many epochs the counts are exact.

    Args:
        weights: [N] float, 0 or more.
    """

    def __init__(self, weights: np.ndarray):
        self._ends = np.cumsum(weights, dtype=np.float64)

    def __call__(self, positions: np.ndarray, seed: int) -> Rows:
        """The rows at positions [b]."""
        count, total = len(self._ends), self._ends[-1]
        epochs, places = np.divmod(positions, count)
        places = permute(places, count, hash_words(ORDER, seed, epochs))
        start = hash_words(_START, seed) + epochs.astype(np.uint64) * _GOLDEN  # wraps
        shares = (places + (start >> np.uint64(11)) * 2.0**-53) / count  # in [0, 1)
        points = np.minimum(shares * total, np.nextafter(total, 0))
        indices = np.searchsorted(self._ends, points, side="right")
        return Rows(indices, hash_words(EXAMPLE, seed, epochs, places))


def make_stream(sampling: str, source: Source, *, skip: bool = False) -> Stream | None:
    """The stream of examples of a training set; None: each example once an epoch.

    Args:
        sampling: one of `SAMPLINGS`, or ''.
        source: the training set.
        skip: see `subset.labels_of`.

    Raises:
        UserError: the source has no classes or weights.
    """
    if sampling == "balanced":
        if not source.class_names:
            several = "several classes an image" if "labels" in source.names else "no classes"
            raise UserError(
                f"config.data.sampling=balanced needs a class for each image, and config.data.train"
                f" has {several}: use weighted, with weights such as table(..., weight=COLUMN)"
            )
        return Balanced(subsets.labels_of(source, skip=skip))
    if sampling == "weighted":
        weights = source.weights()
        if weights is None or not weights.any():
            raise UserError(
                "config.data.sampling=weighted needs weights above 0, and config.data.train has "
                f"{'none' if weights is None else 'zeros only'}: give a source with weights, such "
                "as table(..., weight=COLUMN)"
            )
        return Weighted(weights)
    return None
