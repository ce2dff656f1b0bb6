"""Reads the metrics of training steps without making the device wait, logs them, and detects
divergence.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping

import jax

from mae_jax.engine.log import Log
from mae_jax.engine.optim import Schedule


class Diverged(Exception):
    """Loss or gradients were not finite for too many consecutive steps."""


class Meter:
    """Reads each step's metrics once the next step has started, and logs them when due.

    Args:
        log: the log to write to, every `log.every` steps and after the last.
        schedule: step -> learning rate, logged with the metrics.
        batch_size: images per step.
        max_skipped: consecutive steps with a non-finite loss or gradient at which training stops.
        bad_images: returns the number of unreadable images so far; logged if it is not 0.
    """

    def __init__(
        self,
        log: Log,
        *,
        schedule: Schedule,
        batch_size: int,
        max_skipped: int,
        bad_images: Callable[[], int],
    ):
        self.log, self.schedule, self.bad_images = log, schedule, bad_images
        self.batch_size, self.max_skipped = batch_size, max_skipped
        self.skipped_in_a_row = 0
        self.pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self.restart()

    def restart(self) -> None:
        """Starts a new timing interval."""
        self.begun, self.waited, self.steps = time.monotonic(), 0.0, 0

    @contextlib.contextmanager
    def waiting(self):
        """Counts the time inside as waiting for data."""
        begun = time.monotonic()
        yield
        self.waited += time.monotonic() - begun

    def stepped(self, done: int, metrics: Mapping[str, jax.Array]) -> None:
        """Stores the metrics of step `done`, which has just started, and reads those of the step
        before.

        Raises:
            Diverged: `max_skipped` consecutive steps were not finite.
        """
        previous, self.pending = self.pending, (done, metrics)
        if previous is not None:
            self._settle(*previous)

    def settle(self) -> None:
        """Waits for the running step, and reads its metrics."""
        if self.pending is not None:
            self._settle(*self.pending)
            self.pending = None

    def _settle(self, done: int, metrics: Mapping[str, jax.Array]) -> None:
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self.log.advance(done)
        self.steps += 1
        self.skipped_in_a_row = int(values["skipped_in_a_row"])
        if self.skipped_in_a_row >= self.max_skipped:
            raise Diverged(
                f"loss or gradient not finite for {self.max_skipped} steps in a row, up to step "
                f"{done}; the checkpoints are from before them: try a lower schedule.base_lr, or "
                "method.args.dtype=float32, in another --workdir"
            )
        if done % self.log.every == 0 or done == self.log.total:
            self._write(done, values)

    def _write(self, done: int, values: Mapping[str, float]) -> None:
        elapsed = time.monotonic() - self.begun
        # JSON has no NaN: non-finite values are left out, and 'skipped' counts the step.
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        speed = {
            "images_per_s": round(self.steps * self.batch_size / elapsed, 1),
            "data_wait": round(self.waited / elapsed, 4),
        }
        bad = self.bad_images()
        speed |= {"bad_images": bad} if bad else {}
        self.log.write(done, {**finite, "lr": float(self.schedule(done - 1)), **speed})
        self.restart()
