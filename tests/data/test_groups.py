"""Held-out parts that split no group, with a share as near as whole groups get."""

import itertools

import numpy as np
import pytest

from mae_jax.data import groups
from mae_jax.data.groups import check_groups, nearest_sum, pick_groups
from mae_jax.data.sources import Arrays
from mae_jax.data.subset import Part, hold_out
from mae_jax.types import UserError


class Grouped(Arrays):
    """Examples with groups, and their names if there are any."""

    def __init__(self, numbers, labels=None, names=()):
        arrays = {"image": np.zeros((len(numbers), 1, 1, 1), np.uint8)}
        labeled = {} if labels is None else {"label": labels}
        classes = {} if labels is None else {"label": [str(i) for i in range(labels.max() + 1)]}
        super().__init__(arrays | labeled, classes)
        self.numbers, self._names, self.digest = np.asarray(numbers, np.int32), names, "abc"

    def groups(self):
        """As given."""
        return self.numbers

    @property
    def group_names(self):
        """As given."""
        return self._names


def drawn(rng):
    """Groups of uneven sizes, in any order."""
    sizes = rng.integers(1, rng.integers(2, 40), rng.integers(5, 400))
    return rng.permutation(np.repeat(rng.permutation(len(sizes)), sizes))


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_whole_and_the_share_is_kept(seed):
    rng = np.random.default_rng(seed)
    numbers, share = drawn(rng), rng.uniform(0.05, 0.6)
    labels = rng.integers(0, 4, numbers.max() + 1)[numbers] if seed % 2 else None
    if labels is not None:  # a group may have examples of several classes
        labels = np.where(rng.random(len(labels)) < 0.1, 0, labels)
    source = Grouped(numbers, labels)
    train, val = hold_out(source, share)
    ours, theirs = ({*part.groups().tolist()} for part in (train, val))
    assert not ours & theirs and ours | theirs == {*numbers.tolist()}
    assert train.num_examples + val.num_examples == len(numbers)
    least = np.bincount(numbers)[np.unique(numbers)].min()
    assert abs(val.num_examples - share * len(numbers)) <= max(1, least)
    assert {*hold_out(source, share)[1].indices} == {*val.indices}, "deterministic"
    assert train.digest == val.digest != source.digest
    assert (Part(source, val.indices).groups() == val.groups()).all()


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_nearer_to_the_target(seed):
    """All subsets of a few sizes."""
    rng = np.random.default_rng(seed)
    sizes, target = rng.integers(1, 50, 9), int(rng.integers(0, 200))
    chosen = nearest_sum(sizes, target)
    assert len({*chosen}) == len(chosen)
    sums = [sum(part) for n in range(10) for part in itertools.combinations(sizes.tolist(), n)]
    assert abs(sizes[chosen].sum() - target) == min(abs(total - target) for total in sums)


def test_many_groups_are_filled_in_order(monkeypatch):
    monkeypatch.setattr(groups, "_EXACT", 3)
    sizes = np.array([5, 9, 4, 7, 3, 6, 8])
    assert nearest_sum(sizes, 12).tolist() == [0, 2, 4], "5 and 4 fit, and 3 is left"
    assert nearest_sum(sizes, 10).tolist() == [0, 2], "3 more would be farther"
    assert nearest_sum(np.array([7, 7]), 3).tolist() == []


def test_classes_are_held_out_alike():
    """20 groups of 5 of each class: a tenth of each."""
    numbers = np.repeat(np.arange(60), 5)
    held = pick_groups(numbers, 0.1, strata=numbers // 5 // 20 * 0 + numbers % 3, stream=1)
    assert len(held) == 30
    other = pick_groups(numbers, 0.1, strata=numbers % 3, stream=2)
    assert np.bincount(other // 5 % 3).tolist() == [10, 10, 10] and {*other} != {*held}


def test_a_group_in_both_sets_is_refused():
    train = Grouped([0, 0, 1, 2], names=("a", "b", "c"))
    test = Grouped([0, 1], names=("c", "d"))
    with pytest.raises(UserError, match="share 1 group: c; split the table by groups, or leave"):
        check_groups(train, test)
    check_groups(Part(train, np.array([0, 2])), test)
    check_groups(train, Part(test, np.array([1])))
    check_groups(Grouped([0]), test)
    check_groups(train, Arrays({"image": np.zeros((1, 1, 1, 1))}))
