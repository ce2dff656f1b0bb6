"""The hashes behind all randomness of the data pipeline: fixed for ever, uniform, bijective."""

import numpy as np
import pytest

from mae_jax.data.random import hash_words, permute, uniform

MASK = (1 << 64) - 1


def mix(x):
    """The finaliser of SplitMix64, in Python integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def hash_by_integers(*words):
    """The hash of one sequence of integers."""
    state = 0
    for word in words:
        state = mix(state ^ mix((word + 0x9E3779B97F4A7C15) & MASK))
    return state


# If one of these moves, every run draws other examples, crops and flips than before.
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((0,), 0x48218226FF3CD4BF),
        ((1, 2, 3), 0x558194CB6FE3BC54),
        ((2, 0, 7, 11_999), 0x8F00D40A7A43BB0F),
        ((-1, 1 << 40), 0x3D638D0A61DB2078),
    ],
)
def test_hashes_never_change(words, expected):
    assert int(hash_words(*words)) == expected == hash_by_integers(*words)


def test_permutations_and_uniform_numbers_never_change():
    assert permute(np.arange(10), 10, 7).tolist() == [3, 1, 4, 9, 7, 2, 5, 8, 0, 6]
    assert permute(np.array([0, 1, 11_999]), 12_000, 1 << 63).tolist() == [6521, 4410, 7088]
    assert uniform(np.array([0, 5], np.uint64), 2).tolist() == [
        [0.23286544795475594, 0.3857312060522986],
        [0.12263691106160934, 0.5482954440457237],
    ]


def test_arrays_of_words_are_hashed_one_by_one():
    rows, columns = np.arange(-2, 3)[:, None], np.array([[0, 1, 1 << 50]])
    hashes = hash_words(9, rows, columns)
    assert (hashes.shape, hashes.dtype) == ((5, 3), np.uint64)
    for (i, j), value in np.ndenumerate(hashes):
        assert int(value) == hash_by_integers(9, int(rows[i, 0]), int(columns[0, j]))


def test_hashes_depend_on_every_word_and_on_the_order():
    words = np.arange(10_000)
    pairs = np.stack([hash_words(words, 0), hash_words(0, words), hash_words(words)])
    assert len(np.unique(pairs)) == pairs.size - 1, "only (0, 0) is in twice"


def test_every_bit_of_a_hash_is_fair():
    bits = np.unpackbits(hash_words(3, np.arange(20_000)).view(np.uint8)).reshape(-1, 64)
    np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=5 * 0.5 / np.sqrt(20_000))


def test_uniform_numbers():
    """Range, moments, and no correlation between the numbers of one seed or of neighbors."""
    numbers = uniform(hash_words(1, np.arange(20_000)), 4)
    assert (numbers.shape, numbers.dtype) == ((20_000, 4), np.float64)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert numbers.min() < 1e-3 and numbers.max() > 1 - 1e-3
    np.testing.assert_allclose(numbers.mean(axis=0), 1 / 2, atol=0.01)
    np.testing.assert_allclose(numbers.var(axis=0), 1 / 12, atol=0.003)
    both = np.concatenate([numbers[:-1], numbers[1:]], axis=1)
    correlation = np.corrcoef(both.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.04


def test_uniform_numbers_are_multiples_of_two_to_the_minus_53():
    numbers = uniform(hash_words(2, np.arange(1000)), 3) * 2.0**53
    np.testing.assert_array_equal(numbers, np.floor(numbers))
    assert (numbers % 2 == 1).mean() == pytest.approx(0.5, abs=0.1), "all 53 bits are used"


def test_uniform_numbers_of_a_seed_do_not_depend_on_the_others():
    seeds = hash_words(5, np.arange(6))
    np.testing.assert_array_equal(uniform(seeds, 8)[3:4, :5], uniform(seeds[3:4], 5))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 1000, 12_007])
def test_permute_is_a_bijection(size):
    for key in range(20 if size <= 17 else 2):
        places = permute(np.arange(size), size, key)
        assert places.dtype == np.int64
        np.testing.assert_array_equal(np.sort(places), np.arange(size))


def test_permutations_of_large_sets_stay_inside():
    size = 1_281_167
    places = permute(np.arange(0, size, 97), size, 3)
    assert places.min() >= 0 and places.max() < size
    assert len(np.unique(places)) == len(places)


def test_permutations_differ_between_keys():
    orders = {permute(np.arange(1000), 1000, key).tobytes() for key in range(50)}
    assert len(orders) == 50
    assert len({permute(np.arange(3), 3, key).tobytes() for key in range(200)}) == 6


def test_one_key_for_each_position():
    positions, keys = np.array([0, 0, 4, 4]), np.array([1, 2, 1, 2], np.uint64)
    found = permute(positions, 100, keys)
    expected = [int(permute(np.array([p]), 100, k)[0]) for p, k in zip(positions, keys)]
    assert found.tolist() == expected


def test_permutations_send_every_position_everywhere():
    """Over many keys the place of a position is uniform: chi-square, 16 degrees of freedom."""
    keys = hash_words(np.arange(17_000))
    for position in (0, 8, 16):
        places = permute(np.full(17_000, position), 17, keys)
        counts = np.bincount(places, minlength=17)
        assert ((counts - 1000) ** 2 / 1000).sum() < 16 + 6 * np.sqrt(32)


def test_neighbors_do_not_stay_neighbors():
    places = permute(np.arange(12_007), 12_007, 0)
    assert (np.abs(np.diff(places)) == 1).sum() < 12
    assert abs(np.corrcoef(np.arange(12_007), places)[0, 1]) < 0.05
