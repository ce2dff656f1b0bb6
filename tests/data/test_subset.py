"""Parts of a training set: held out, or with few labels."""

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data.sources import Arrays
from mae_jax.data.subset import hold_out, subset
from mae_jax.types import UserError

LABELS = np.repeat([0, 1, 2], [200, 80, 20]).astype(np.int32)


@pytest.fixture
def source():
    """300 examples that hold their own number, in classes of 200, 80 and 20."""
    numbers = np.arange(300, dtype=np.uint16).view(np.uint8).reshape(300, 1, 1, 2)
    return Arrays({"image": numbers, "label": LABELS}, {"label": ("many", "some", "few")})


def numbers_of(part):
    """Which examples of the whole are in a part."""
    rows = np.asarray(part.read(np.arange(part.num_examples))["image"])
    return rows.reshape(-1, 2).copy().view(np.uint16).ravel()


def test_what_is_held_out_and_what_remains_are_all_there_is(source):
    kept, held = hold_out(source, 0.1)
    assert (kept.num_examples, held.num_examples) == (270, 30)
    assert sorted([*numbers_of(kept), *numbers_of(held)]) == list(range(300))
    assert len(set(numbers_of(held) // 100)) == 3, "from everywhere"
    np.testing.assert_array_equal(numbers_of(hold_out(source, 0.1)[1]), numbers_of(held))
    assert held.name(0) == source.name(numbers_of(held)[0])


def test_what_is_held_out_is_of_each_class_where_labels_are_known(source):
    _, held = hold_out(source, 0.1)
    assert np.bincount(LABELS[numbers_of(held)]).tolist() == [20, 8, 2]
    kept, held = hold_out(subset(source, "per_class(2)"), 0.4)
    assert np.bincount(part_labels(kept)).tolist() == [1, 1, 1]
    with pytest.raises(UserError, match="held_out 0.4 of 3 images is 0"):
        hold_out(subset(source, "per_class(1)"), 0.4)
    unlabelled = Arrays({"image": source.arrays["image"]})
    kept, held = hold_out(unlabelled, 0.1)
    assert sorted([*numbers_of(kept), *numbers_of(held)]) == list(range(300))
    assert len(set(numbers_of(held) // 100)) == 3, "from everywhere"


def test_a_share_is_one_of_every_class(source):
    part = subset(source, "share(0.1)")
    counts = np.bincount(LABELS[numbers_of(part)])
    assert counts.tolist() == [20, 8, 2]
    assert np.bincount(LABELS[numbers_of(subset(source, "share(0.001)"))]).tolist() == [1, 1, 1]
    assert subset(source, "share(1)").num_examples == 300


def test_a_share_without_classes(source):
    without = Arrays({"image": source.arrays["image"]})
    part, more = (subset(without, f"share({share}, seed=1)") for share in (0.1, 0.2))
    assert part.num_examples == 30 and len(set(numbers_of(part) // 100)) == 3
    assert part.labels() is None and set(numbers_of(part)) < set(numbers_of(more))
    with pytest.raises(UserError, match="per_class needs labels: .* or share"):
        subset(without, "per_class(1)")


def test_as_many_of_every_class_and_others_for_other_seeds(source):
    one, other = (subset(source, f"per_class(10, seed={seed})") for seed in (1, 2))
    assert np.bincount(LABELS[numbers_of(one)]).tolist() == [10, 10, 10]
    assert set(numbers_of(one)) != set(numbers_of(other))
    assert set(numbers_of(subset(source, "per_class(10, seed=1)"))) == set(numbers_of(one))
    assert part_labels(one) == LABELS[numbers_of(one)].tolist()


def part_labels(part):
    """Labels of all examples."""
    return list(part.read(np.arange(part.num_examples))["label"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("per_class(21)", "class 'few' has 20 images, fewer than 21: lower it"),
        ("per_class(0)", "per_class(0): at least one is needed"),
        ("share(0)", "share(0): give a share in (0, 1]"),
        ("half", "subset 'half': write share(...) or per_class(...)"),
        ("share(0.1, sed=1)", "did you mean 'seed'?"),
    ],
)
def test_wrong_subsets_are_explained(source, text, message):
    with pytest.raises(UserError) as error:
        subset(source, text)
    assert message in str(error.value)


def test_shares_that_leave_nothing(source):
    for share in (0.001, 0.999, 2.0, -1.0):
        with pytest.raises(UserError, match="leaves some on both sides"):
            hold_out(source, share)


def test_both_in_the_data():
    data = make_data(
        train="fashion_scenes(num_examples=200, size=16)",
        subset="per_class(10)",
        held_out=0.2,
        batch_size=4,
        train_transform="",
        eval_transform="",
    )
    assert data.num_examples == 80
    assert sum(batch["valid"].sum() for batch in data.eval("val")) == 20
