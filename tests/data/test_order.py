"""Which examples a step sees: every one once an epoch, whatever the processes and the start."""

import time

import numpy as np
import pytest

from mae_jax.data.order import evaluation_rows, training_rows


def stream(steps, **options):
    """Indices and seeds of these steps, one after another."""
    rows = [training_rows(step, **options) for step in steps]
    return (
        np.concatenate([row.indices for row in rows]),
        np.concatenate([row.seeds for row in rows]),
    )


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_global_batch(processes):
    """Also where a batch joins two epochs (step 2) and where it is larger than the set."""
    for num_examples in (30, 5):
        options = dict(seed=3, num_examples=num_examples, batch_size=12)
        for step in (0, 1, 2, 3, 1000):
            whole = training_rows(step, **options)
            parts = [
                training_rows(step, **options, process_index=index, process_count=processes)
                for index in range(processes)
            ]
            assert all(len(part.indices) == 12 // processes for part in parts)
            for field in ("indices", "seeds"):
                joined = np.concatenate([getattr(part, field) for part in parts])
                np.testing.assert_array_equal(joined, getattr(whole, field))


@pytest.mark.parametrize(("num_examples", "batch_size"), [(30, 12), (7, 3), (5, 12), (1, 2)])
def test_every_example_comes_once_an_epoch(num_examples, batch_size):
    epochs = 6
    steps = range(-(-epochs * num_examples // batch_size))
    indices, seeds = stream(steps, seed=0, num_examples=num_examples, batch_size=batch_size)
    assert (indices.dtype, seeds.dtype) == (np.int64, np.uint64)
    whole = epochs * num_examples
    by_epoch = indices[:whole].reshape(epochs, num_examples)
    np.testing.assert_array_equal(
        np.sort(by_epoch, axis=1), np.tile(np.arange(num_examples), (epochs, 1))
    )
    assert len(np.unique(seeds[:whole])) == whole, "each example has a seed of its own each time"


def test_epochs_and_runs_have_orders_of_their_own():
    options = dict(num_examples=50, batch_size=50)
    orders = [
        training_rows(step, seed=seed, **options).indices.tobytes()
        for step in range(5)
        for seed in (0, 1, -1)
    ]
    assert len(set(orders)) == 15


def test_a_late_start_is_immediate():
    options = dict(seed=1, num_examples=1_281_167, batch_size=4096)
    start = time.process_time()
    rows = training_rows(1_000_000, **options)
    assert time.process_time() - start < 1
    assert rows.indices.min() >= 0 and rows.indices.max() < 1_281_167
    assert len(np.unique(rows.indices)) == 4096
    assert (rows.indices != training_rows(0, **options).indices).any()


def test_steps_far_beyond_32_bits():
    rows = training_rows(10**12, seed=0, num_examples=1000, batch_size=10)
    assert rows.indices.min() >= 0 and rows.indices.max() < 1000


def test_the_stream_does_not_depend_on_the_batch_size():
    few = stream(range(30), seed=4, num_examples=17, batch_size=2)
    many = stream(range(5), seed=4, num_examples=17, batch_size=12)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_are_a_function_of_run_epoch_and_example():
    """The same for any batch size, and for any size of the set that holds the example."""
    seeds = {}
    for num_examples, batch_size in ((12, 12), (12, 4), (20, 5), (31, 3)):
        for step in range(3 * num_examples // batch_size):
            rows = training_rows(step, seed=5, num_examples=num_examples, batch_size=batch_size)
            places = range(step * batch_size, (step + 1) * batch_size)
            for place, index, seed in zip(places, rows.indices, rows.seeds, strict=True):
                epoch = place // num_examples
                assert seeds.setdefault((epoch, int(index)), seed) == seed
    assert len(set(seeds.values())) == len(seeds)
    other = training_rows(0, seed=6, num_examples=12, batch_size=12)
    assert not set(other.seeds) & set(seeds.values())


def test_order_never_changes():
    rows = training_rows(1, seed=0, num_examples=12_000, batch_size=4)
    assert rows.indices.tolist() == [1758, 3202, 8887, 7367]
    assert rows.seeds.tolist() == [
        0x5FF73D5D322CCF7D,
        0xD98D35448C9F90D7,
        0x01F13AC31D284BBC,
        0x8A147A2E58B8849C,
    ]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_rows(processes):
    """Ten examples in batches of six: in order, and the last one again where there are no more."""
    for step, (indices, real) in enumerate(
        [
            ([0, 1, 2, 3, 4, 5], [True] * 6),
            ([6, 7, 8, 9, 9, 9], [True] * 4 + [False] * 2),
        ]
    ):
        parts = [
            evaluation_rows(
                step,
                num_examples=10,
                batch_size=6,
                process_index=index,
                process_count=processes,
            )
            for index in range(processes)
        ]
        assert np.concatenate([part[0] for part in parts]).tolist() == indices
        assert np.concatenate([part[1] for part in parts]).tolist() == real


def test_evaluation_rows_of_fewer_examples_than_a_batch():
    indices, real = evaluation_rows(0, num_examples=1, batch_size=3)
    assert indices.tolist() == [0, 0, 0] and real.tolist() == [True, False, False]
