"""Counter-based random numbers for the data pipeline: each is a hash of its seed and counters.

`jax.random` would make data workers hold a device, and the streams of `numpy.random.Generator` may
change between numpy releases. These hashes never change, take one vectorized pass over a batch, and
are the same in any order and in any process. The mixing function is the finalizer of SplitMix64
(Steele, Lea, Flood 2014).
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash_words(*words) -> np.ndarray:
    """A 64-bit hash of a sequence of words.

    Args:
        words: integers or integer arrays that broadcast together; negative values wrap.

    Returns:
        uint64 array of the broadcast shape.
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            word = np.asarray(word)
            word = word.astype(np.int64) if word.dtype.kind == "i" else word
            state = _mix(state ^ _mix(word.astype(np.uint64) + _GOLDEN))
    return state


def uniform(seeds: np.ndarray, count: int) -> np.ndarray:
    """`count` independent uniform numbers in [0, 1) for each seed.

    Args:
        seeds: [B] uint64, from `hash_words`.
        count: numbers per seed.

    Returns:
        [B, count] float64, each a multiple of 2**-53.
    """
    words = hash_words(np.asarray(seeds, np.uint64)[:, None], np.arange(count))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(positions: np.ndarray, size, key) -> np.ndarray:
    """Applies a keyed permutation of [0, size) to positions, without storing the permutation.

    A Feistel network over the smallest even number of bits that holds `size`. A value outside the
    range passes through again until it is inside ("cycle walking", Black and Rogaway 2002), fewer
    than four times on average.

    Args:
        positions: integers in [0, size), any shape.
        size: number of permuted elements, at least 1; int, or int array of the same shape.
        key: int, or uint64 array of the same shape; each value is another permutation.

    Returns:
        int64 array of the shape of `positions`.
    """
    bits = np.frexp(np.asarray(size) - 1.0)[1]  # of the largest element
    halves = np.maximum(1, (bits + 1) // 2).astype(np.uint64)
    values, sizes = (np.asarray(one).astype(np.uint64) for one in (positions, size))
    keys = np.broadcast_to(np.asarray(key, np.uint64), values.shape)
    pending = np.ones(values.shape, bool)
    while pending.any():
        half = halves[pending] if halves.ndim else halves
        low = (np.uint64(1) << half) - np.uint64(1)
        left, right = values[pending] >> half, values[pending] & low
        for round_ in range(6):
            left, right = right, left ^ (hash_words(keys[pending], round_, right) & low)
        values[pending] = (left << half) | right
        pending = values >= sizes
    return values.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
