"""Delivers the values of a run to its writers. A service that fails does not end the run: calls
wait in a queue and are repeated. What was sent is noted in the workdir, so that a resumed run sends
nothing twice, and sends the earlier lines of metrics.jsonl that a service does not have yet.
"""

import functools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mae_jax.json_files import read_json
from mae_jax.metrics import EVAL
from mae_jax.types import Metric, UserError
from mae_jax.workdir import write
from mae_jax.writers.writer import Session, Writer

FILE = "writers.json"
"""File of the workdir with the notes of the writers, by name."""
PAUSE, SLOWEST = 10.0, 10.0
"""After a failed call a service is left alone for at least PAUSE seconds, and for SLOWEST times as
long as the call took."""
ATTEMPTS = 10
"""Failures after which a call is left out, so that a rejected value does not block later ones."""

Lines = Callable[[], Iterable[Mapping[str, float]]]
"""Returns the lines of metrics.jsonl."""


class Call(NamedTuple):
    """A call of a writer that has not succeeded yet."""

    kind: str
    """'start', 'train', 'eval', 'image NAME' or 'results'."""
    mark: Any
    """What is noted after it as sent of this kind: the step, of results also the values."""
    send: Callable[[], None]


class Delivery:
    """The calls of one writer.

    Args:
        name: of the writer, for messages.
        writer: the writer.
        session: the run.
        save: saves the session's notes.
        report: prints a line.
    """

    def __init__(
        self,
        name: str,
        writer: Writer,
        session: Session,
        *,
        save: Callable[[], None],
        report: Callable[[str], None],
    ):
        self.name, self.writer, self.session = name, writer, session
        self.save, self.report = save, report
        self.queue = [Call("start", None, lambda: writer.start(session))]
        self.started = False
        self.failed = self.lost = self.attempts = 0
        self.resting_until = 0.0

    @property
    def sent(self) -> dict[str, Any]:
        """Kind of call -> mark of the last one sent; {} for a service that replaces repetitions."""
        return {} if self.writer.replaces else self.session.notes.setdefault("sent", {})

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Sends named numbers, unless they were sent before the run was interrupted."""
        kind = "eval" if any(name.startswith(EVAL) for name in values) else "train"
        send = functools.partial(self.writer.scalars, step, dict(values), wall_time)
        self._offer(kind, step, send)

    def image(self, step: int, name: str, pixels: np.ndarray, text: str, wall_time: float) -> None:
        """Sends a picture likewise. Of several that wait only the newest is kept."""
        kind = f"image {name}"
        waiting = [call for call in self.queue if call.kind != kind]
        self.lost += len(self.queue) - len(waiting)
        self.queue = waiting
        send = functools.partial(self.writer.image, step, name, pixels, text, wall_time)
        self._offer(kind, step, send)

    def results(self, step: int, results: Mapping, metrics: Mapping, wall_time: float) -> None:
        """Sends the final results, unless the same were sent."""
        if self.sent.get("results") != [step, results]:
            send = functools.partial(self.writer.results, step, results, metrics, wall_time)
            self.queue.append(Call("results", [step, results], send))
            self._send()

    def begin(self, lines: Lines) -> None:
        """Starts the writer, and sends the lines that it does not have yet, up to the start."""
        self._send()
        if self.writer.replaces:
            return
        for line in lines():
            if line["step"] <= self.session.start:
                values = {k: v for k, v in line.items() if k not in ("step", "time")}
                self.scalars(int(line["step"]), values, line.get("time", 0.0))

    def close(self, *, failed: bool) -> None:
        """Sends what waits, once more, ends the session and reports what was not sent."""
        self.resting_until = 0.0
        try:
            self._send()
            if self.started:
                self.writer.finish(failed=failed)
        except Exception as error:
            self._count(error)
        waiting = sum(call.kind != "start" for call in self.queue)
        if self.failed:
            left = f"{self.lost + waiting} were not sent" if self.lost + waiting else "all was sent"
            self.report(f"{self.name}: {self.failed} call(s) failed; {left}")

    def _offer(self, kind: str, step: int, send: Callable[[], None]) -> None:
        if step > self.sent.get(kind, -1):
            self.queue.append(Call(kind, step, send))
            self._send()

    def _send(self) -> None:
        """Makes the calls that wait, in their order, until one fails."""
        while self.queue and time.monotonic() >= self.resting_until:
            call, begun = self.queue[0], time.monotonic()
            try:
                call.send()
            except UserError:
                self.queue.pop(0)
                raise
            except Exception as error:  # of any type: those of services have nothing in common
                took = time.monotonic() - begun
                self.resting_until = time.monotonic() + max(PAUSE, SLOWEST * took)
                self._count(error)
                if self.attempts == ATTEMPTS and call.kind != "start":
                    self.lost, self.attempts = self.lost + 1, 0
                    self.queue.pop(0)
                return
            self.queue.pop(0)
            self.attempts = 0
            self.started = True
            if not self.writer.replaces:
                if call.mark is not None:
                    self.sent[call.kind] = call.mark
                self.save()

    def _count(self, error: Exception) -> None:
        """Counts a failed call, and reports the first one."""
        self.failed, self.attempts = self.failed + 1, self.attempts + 1
        if self.failed == 1:
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            self.report(
                f"{self.name} failed ({type(error).__name__}: {line}): the run goes on, its values "
                "are in metrics.jsonl, and further failures are counted only"
            )


class Writers:
    """All writers of a run; does nothing in processes other than the first.

    Use as a context manager.

    Args:
        writers: by name.
        workdir: workdir of the run.
        config: its config, as nested dicts.
        report: prints a line.

    Raises:
        UserError: a package is missing, or writers.json is damaged.
    """

    def __init__(
        self,
        writers: Mapping[str, Writer],
        *,
        workdir: Path,
        config: Mapping[str, Any],
        report: Callable[[str], None] = print,
    ):
        self.writers = writers if jax.process_index() == 0 else {}
        self.workdir, self.config, self.report = workdir, config, report
        self.deliveries: list[Delivery] = []
        self.notes: dict[str, dict[str, Any]] = {}
        for writer in self.writers.values():
            writer.check()

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        for delivery in self.deliveries:
            delivery.close(failed=kind is not None)

    def start(self, step: int, lines: Lines) -> None:
        """Starts all writers; does nothing if they have been started.

        Args:
            step: steps done so far; 0: a new run, which continues none at a service.
            lines: returns the lines of metrics.jsonl.
        """
        if self.deliveries or not self.writers:
            return
        path = self.workdir / FILE
        if step and path.is_file():
            check = lambda content: (
                isinstance(content, dict) and all(isinstance(v, dict) for v in content.values())
            )
            way = "remove it, and the run begins anew at the services that it is logged to"
            self.notes = read_json(path, way, check)
        for name, writer in self.writers.items():
            session = Session(workdir=self.workdir, start=step, config=self.config)
            session.notes = self.notes.setdefault(name, {})
            delivery = Delivery(name, writer, session, save=self._save, report=self.report)
            self.deliveries.append(delivery)
            delivery.begin(lines)

    def scalars(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Sends named numbers after `step` steps to all writers."""
        for delivery in self.deliveries:
            delivery.scalars(step, values, wall_time)

    def image(self, step: int, name: str, pixels: np.ndarray, text: str) -> None:
        """Sends a picture [H, W, 3] uint8 to all writers, with a caption in Markdown."""
        for delivery in self.deliveries:
            delivery.image(step, name, pixels, text, time.time())

    def results(
        self, step: int, results: Mapping[str, Mapping[str, float]], metrics: Mapping[str, Metric]
    ) -> None:
        """Sends the final results to all writers: representation -> metric -> value."""
        for delivery in self.deliveries:
            delivery.results(step, results, metrics, time.time())

    def _save(self) -> None:
        """Writes the notes of all writers that have any, atomically."""
        notes = {name: one for name, one in self.notes.items() if one}
        write(self.workdir / FILE, json.dumps(notes))
