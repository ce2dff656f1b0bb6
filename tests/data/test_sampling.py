"""Balanced and weighted streams: exact counts, whatever the processes and the start."""

import time

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data.order import training_rows
from mae_jax.data.sampling import Balanced, Weighted, make_stream
from mae_jax.data.sources import Arrays
from mae_jax.types import UserError

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 3], [200, 83, 17]))
WEIGHTS = np.random.default_rng(1).random(300) * (np.arange(300) % 7 > 0)
STREAMS = {"balanced": Balanced(LABELS), "weighted": Weighted(WEIGHTS)}


def indices_of(stream, first, count, seed=0):
    """Examples at some positions."""
    return stream(np.arange(first, first + count), seed).indices


@pytest.mark.parametrize("first", [0, 3 * 10**9])
def test_classes_and_their_examples_are_equally_frequent(first):
    found = indices_of(STREAMS["balanced"], first, 300)
    assert np.bincount(LABELS[found]).tolist() == [100, 100, 0, 100]
    per_turn = np.sort(LABELS[found].reshape(100, 3), axis=1)
    assert (per_turn == [0, 1, 3]).all()
    for label, count in ((0, 200), (1, 83), (3, 17)):
        members = indices_of(STREAMS["balanced"], 0, 3 * 5 * count)
        seen = np.bincount(members[LABELS[members] == label], minlength=300)
        assert (seen[label == LABELS] == 5).all() and not seen[label != LABELS].any()


def test_examples_are_as_frequent_as_they_weigh():
    share = WEIGHTS / WEIGHTS.sum()
    for epoch in (0, 1, 10**7):
        counts = np.bincount(indices_of(STREAMS["weighted"], 300 * epoch, 300), minlength=300)
        assert (np.abs(counts - 300 * share) < 1 + 1e-9).all()
    counts = np.bincount(indices_of(STREAMS["weighted"], 0, 300 * 1000), minlength=300)
    assert np.abs(counts - 300_000 * share).max() < 3, "not 1000 times a rounding"
    assert not counts[WEIGHTS == 0].any()
    equal = Weighted(np.full(40, 0.3))
    assert sorted(indices_of(equal, 40, 40)) == list(range(40)) != list(indices_of(equal, 40, 40))


@pytest.mark.parametrize("name", STREAMS)
def test_orders_are_random_and_seeds_unique(name):
    stream = STREAMS[name]
    rows = stream(np.arange(3000), 5)
    assert len({*rows.seeds.tolist()}) == 3000 and rows.indices.dtype == np.int64
    epochs = rows.indices.reshape(10, 300)
    assert len({epoch.tobytes() for epoch in epochs}) == 10
    assert (indices_of(stream, 0, 300, seed=6) != epochs[0]).any()
    following = np.corrcoef(epochs[0][:-1], epochs[0][1:])[0, 1]
    assert abs(following) < 0.25


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("name", STREAMS)
def test_processes_share_the_global_batch(name, processes):
    options = dict(seed=3, num_examples=300, batch_size=12, stream=STREAMS[name])
    for step in (0, 1, 24, 25, 10**6):
        whole = STREAMS[name](np.arange(12 * step, 12 * step + 12), 3)
        rows = [
            training_rows(step, **options, process_index=index, process_count=processes)
            for index in range(processes)
        ]
        for field in ("indices", "seeds"):
            joined = np.concatenate([getattr(part, field) for part in rows])
            np.testing.assert_array_equal(joined, getattr(whole, field))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_an_epoch_of_batches_is_balanced(processes, monkeypatch):
    """75 batches of 4 of 300 examples, read by each process."""
    source = Arrays(
        {"image": np.zeros((300, 1, 1, 1), np.uint8), "label": LABELS.astype(np.int32)},
        {"label": ("a", "b", "c", "d")},
    )
    monkeypatch.setattr("mae_jax.data.open_sources", lambda texts: {"train": source})
    labels = []
    for index in range(processes):
        data = make_data(
            train="any",
            batch_size=4,
            train_transform="",
            eval_transform="",
            sampling="balanced",
            workers=1,
            process_index=index,
            process_count=processes,
        )
        batches = data.train(75)
        labels += [next(batches)["label"] for _ in range(75)]
    assert np.bincount(np.concatenate(labels)).tolist() == [100, 100, 0, 100]


@pytest.mark.parametrize("name", STREAMS)
def test_copies_of_an_example_have_seeds_of_their_own(name):
    options = dict(seed=3, num_examples=300, stream=STREAMS[name])
    one = training_rows(7, batch_size=6, **options)
    rows = training_rows(7, batch_size=18, repeats=3, **options)
    np.testing.assert_array_equal(rows.indices, np.repeat(one.indices, 3))
    np.testing.assert_array_equal(rows.seeds[::3], one.seeds)
    assert len({*rows.seeds.tolist()}) == 18 and rows.repeats == 3


def test_a_late_start_is_immediate():
    labels = np.arange(1_000_000) % 1000
    stream = Balanced(labels)
    start = time.process_time()
    found = stream(np.arange(10**12, 10**12 + 4000), 0).indices
    assert time.process_time() - start < 1
    assert (np.bincount(labels[found]) == 4).all()


def test_examples_without_a_class_are_left_out():
    labels = np.array([-1, 1, -1, 0, 1])
    assert {*indices_of(Balanced(labels), 0, 100).tolist()} == {1, 3, 4}


def test_what_is_missing_is_explained():
    images = np.zeros((2, 1, 1, 1), np.uint8)
    several = Arrays({"image": images, "labels": images}, {"labels": ("a", "b")})
    for source, sampling, message in (
        (Arrays({"image": images}), "balanced", "needs a class for each image.*has no classes"),
        (several, "balanced", "config.data.train has several classes an image: use weighted"),
        (several, "weighted", "needs weights above 0, and config.data.train has none: give a"),
    ):
        with pytest.raises(UserError, match=message):
            make_stream(sampling, source)
    assert make_stream("", several) is None
    options = dict(train="x", batch_size=1, train_transform="", eval_transform="")
    with pytest.raises(UserError, match="sampling 'even' is unknown: choose balanced, weighted"):
        make_data(**options, sampling="even")
    with pytest.raises(UserError, match="the field 'weight' would count the weights twice: leave"):
        make_data(**options, sampling="weighted", fields=("label", "weight"))
