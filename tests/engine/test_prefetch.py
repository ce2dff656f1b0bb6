"""Batches on the devices ahead of time: the same ones, in order, and no more than said."""

import itertools

from mae_jax.engine.prefetch import AHEAD, prefetch


def numbers(log, count):
    """Generates 0, 1, ... and notes how far it got, and that it was closed."""
    try:
        for number in range(count):
            log.append(number)
            yield number
    finally:
        log.append("closed")


def test_order_is_kept_and_the_end_is_reached():
    log = []
    assert list(prefetch(numbers(log, 7), lambda batch: batch * 10)) == list(range(0, 70, 10))
    assert list(prefetch(numbers([], 1), str)) == ["0"]


def test_transfers_start_ahead_but_not_further():
    log, moved = [], []
    stream = prefetch(numbers(log, 100), lambda batch: moved.append(batch) or batch)
    for taken in itertools.islice(stream, 5):
        assert moved == list(range(taken + AHEAD + 1))


def test_closing_closes_the_source():
    log = []
    stream = prefetch(numbers(log, 100), str)
    next(stream)
    stream.close()
    assert log[-1] == "closed"
