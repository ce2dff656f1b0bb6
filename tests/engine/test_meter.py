"""What is measured between two log lines."""

from types import SimpleNamespace

import numpy as np

from mae_jax.engine import meter as metering
from mae_jax.engine.meter import Meter


class Lines:
    """A log that keeps what is written."""

    every, total = 2, 4

    def __init__(self):
        self.written = []

    def advance(self, step):
        """Nothing moves."""

    def write(self, step, values):
        """Keeps a line."""
        self.written.append((step, values))


def test_waiting_for_data_is_measured_and_bad_images_are_counted(monkeypatch):
    clock = SimpleNamespace(now=7.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(metering, "time", clock)
    log, bad = Lines(), iter([0, 3])
    meter = Meter(
        log,
        schedule=lambda step: 0.5,
        batch_size=10,
        max_skipped=5,
        bad_images=lambda: next(bad),
    )
    for step in range(1, 5):
        with meter.waiting():
            clock.now += 3 if step <= 2 else 0
        clock.now += 1 if step <= 2 else 4
        meter.stepped(step, {"loss": np.float32(1), "skipped_in_a_row": np.int32(0)})
    meter.settle()
    (first, slow), (second, quick) = log.written
    assert (first, second) == (2, 4)
    # A step is read when the next one has started, so the first line is of three steps' time.
    assert (slow["data_wait"], quick["data_wait"]) == (0.5, 0)
    assert (slow["images_per_s"], quick["images_per_s"]) == (1.7, 5)
    assert "bad_images" not in slow and quick["bad_images"] == 3
