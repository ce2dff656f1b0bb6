"""Progress of an evaluation: a live status line on a terminal, a line every 30 s elsewhere."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

from mae_jax.data import Data
from mae_jax.engine.log import console

SECONDS = 30
"""Seconds between two lines without a terminal."""


class Progress:
    """Data for evaluators, which reports their progress. Use as a context manager.

    Args:
        data: data of the run.
        count: number of representations to evaluate.
    """

    def __init__(self, data: Data, count: int):
        self.data, self.count = data, count
        self.place, self.text, self.reported = 0, "", 0.0
        self.active = jax.process_index() == 0
        self.status = console.status("evaluating") if console.is_terminal and self.active else None

    def __enter__(self):
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *error):
        if self.status:
            self.status.stop()

    def turn(self, name: str) -> None:
        """Starts the next representation."""
        self.place, self.name = self.place + 1, name

    def begin(self, evaluator: str) -> None:
        """Starts an evaluator."""
        self.text = f"evaluating {self.name} ({self.place} of {self.count}): {evaluator}"
        self._report(self.text)

    def eval(
        self, split: str, limit: int | None = None, then: str = "", shuffled: bool = False
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """See `Data.eval`."""
        total = self.data.eval_steps(split, limit)
        for done, batch in enumerate(self.data.eval(split, limit, then, shuffled), 1):
            yield batch
            self._report_batch(split, done, total)

    def example(self, stage: str, split: str = "train") -> Mapping[str, np.ndarray]:
        """See `Data.example`."""
        return self.data.example(stage, split)

    def source(self, split: str):
        """See `Data.source`."""
        return self.data.source(split)

    def sizes(self, split: str) -> np.ndarray:
        """See `Data.sizes`."""
        return self.data.sizes(split)

    @property
    def on_error(self) -> str:
        """See `Data`."""
        return self.data.on_error

    def originals(
        self, split: str, batches: Sequence[Sequence[int]], batch_size: int, decoded: bool = True
    ):
        """See `Data.originals`."""
        examples = self.data.originals(split, batches, batch_size, decoded)
        for done, rows in enumerate(examples, 1):
            yield rows
            self._report_batch(split, done, len(batches))

    def _report_batch(self, split: str, done: int, total: int) -> None:
        if self.status or time.monotonic() - self.reported > SECONDS:
            self._report(f"{self.text}, {split} batch {done} of {total}")

    def _report(self, text: str) -> None:
        self.reported = time.monotonic()
        if self.status:
            self.status.update(text)
        elif self.active:
            print(text, file=sys.stderr, flush=True)
