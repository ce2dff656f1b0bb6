"""Ends all processes of a job if one of them fails, freezes or dies; each reports which one it was
and why.

A thread in every process writes a heartbeat to the key-value store of the job and reads those of
other processes: process 0 of all, the others of process 0. A failing process writes the reason to
the store before it ends. Without this, JAX would wait for minutes in a collective operation that
the dead process never joins.
"""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax

from mae_jax.engine.log import console
from mae_jax.engine.memory import explained

INPUT, STEP, DONE = "input", "step", "done"
"""Phases of the main thread: waiting for a batch; waiting for a step's result; all work is done."""
INPUT_NOTICE = 30.0
"""Seconds of waiting for a batch after which it is reported."""
DAY = 24 * 3600.0

XLA_ERRORS = ("UNKNOWN:", "UNAVAILABLE:", "INTERNAL:", "ABORTED:", "CANCELLED:", "DEADLINE_")
"""Prefixes of errors that another process may have caused, by leaving a collective operation."""


class Store(Protocol):
    """A key-value store that all processes of a job can read and write."""

    def set(self, key: str, value: str) -> None:
        """Writes a value, replacing an earlier one."""

    def all(self, folder: str) -> dict[str, str]:
        """The values under 'folder/', by the rest of the key."""

    def get(self, key: str, timeout: float) -> str:
        """Reads a value; waits for it up to `timeout` seconds."""

    def meet(self, name: str, timeout: float) -> None:
        """A barrier for all processes; each name can be used once."""


class Phase(NamedTuple):
    """The current phase of a process's main thread."""

    name: str = ""
    step: int = 0
    began: float = 0.0
    share: Callable[[float], float] | None = None
    """Seconds of the current wait -> share of the run's time spent waiting for data."""


class End(NamedTuple):
    """The reason why a job ends, and its exit code."""

    text: str
    code: int
    stalled: bool = False


class Watchdog:
    """Watches this process and the others; use as a context manager. Without a store, for a single
    process, it only reports a slow input pipeline.

    Args:
        store: key-value store of the job.
        index, count: index of this process, and number of processes.
        timeout: seconds without a heartbeat after which a process counts as dead. Whatever the
            cause, all processes end within twice that time.
        explain: exception -> (exit code, one-line message, or None if a traceback is needed).
        leave: ends the process at once with an exit code.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        index: int = 0,
        count: int = 1,
        timeout: float = 30.0,
        explain: Callable[[BaseException], tuple[int, str | None]] | None = None,
        leave: Callable[[int], None] = os._exit,
    ):
        self.store, self.index, self.count, self.timeout = store, index, count, timeout
        self.interval = min(1.0, timeout / 20)
        self.heard = time.monotonic()
        """When the store last answered."""
        self.advice = "choose smaller images, or a smaller model in config.method.args"
        """Which settings to change if memory runs out."""
        self._explain, self._leave = explain, leave
        self._phase, self._steps, self._longest = Phase(), 0, 0.0
        self._said: Phase | None = None
        self._beat, self._silence, self._last = 0, dict.fromkeys(range(count), 0.0), {}
        self._ending, self._stopped = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stopped.set()
        self._thread.join(self.timeout)
        if self.store is not None:
            faulthandler.cancel_dump_traceback_later()

    @contextlib.contextmanager
    def phase(self, name: str, step: int = 0, share: Callable[[float], float] | None = None):
        """Marks the phase of the main thread inside.

        Args:
            name: INPUT, of any length; STEP, which must not take all processes much longer than any
                step before; DONE, while no other process may wait for this one in a STEP.
            step: steps done once the phase succeeds.
            share: see `Phase`.
        """
        began = time.monotonic()
        self._phase = Phase(name, step, began, share)
        try:
            yield
        finally:
            self._phase = Phase()
            if name == STEP:
                self._steps += 1
                if self._steps > 2:  # skip the first step's setup, which the second waits for
                    self._longest = max(self._longest, time.monotonic() - began)

    @property
    def limit(self) -> float:
        """Seconds that a step may take; a day for each of the first three."""
        return max(4 * self.timeout, 10 * self._longest) if self._steps > 2 else DAY

    @contextlib.contextmanager
    def guard(self, *agreed: type[BaseException]):
        """If this process fails inside, ends the whole job with one exit code, before this
        process's own clean-up, which could block on the others. Exceptions of the `agreed` types,
        raised by all processes at the same step, pass through; so does any exception of a single
        process. Running out of memory becomes a `UserError` with this watchdog's `advice`.
        """
        try:
            with explained(lambda: self.advice):
                yield
        except agreed:
            raise
        except BaseException as error:
            if self.store is None:
                raise
            self._fail(error)

    def finish(self) -> None:
        """Waits until all processes have finished."""
        if self.store is not None:
            with self.phase(DONE):
                self.store.meet("finish", DAY)

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, jax.errors.JaxRuntimeError) or str(error).startswith(XLA_ERRORS):
            time.sleep(self.timeout + 3 * self.interval)  # the process at fault is found meanwhile
        code, text = self._explain(error)
        if text is None:
            traceback.print_exception(error)
            text = (traceback.format_exception_only(error)[-1].strip().splitlines() or ["error"])[0]
        self._announce(self.index, End(text, code))
        self._end(self.index, End(text, code))

    def _watch(self) -> None:
        """Publishes heartbeats and checks the others' until it is stopped."""
        before = time.monotonic()
        while not self._stopped.wait(self.interval):
            now = time.monotonic()
            # A delay of this thread itself is no evidence against the others.
            elapsed, before = min(now - before, 2 * self.interval), now
            self._notice_input(now)
            if self.store is None:
                continue
            # Ends the process even if a thread never releases the GIL.
            faulthandler.dump_traceback_later(2 * self.timeout, exit=True)
            try:
                self._look(elapsed)
            except jax.errors.JaxRuntimeError:  # no answer; JAX ends a process that lost the store
                self._note_silence({}, elapsed)

    def _notice_input(self, now: float) -> None:
        """Reports a long wait for a batch, once per wait."""
        phase = self._phase
        if phase.name != INPUT or now - phase.began < INPUT_NOTICE or phase is self._said:
            return
        self._said, waited = phase, now - phase.began
        part = f", {phase.share(waited):.0%} of the time by now" if phase.share else ""
        console.print(
            f"{self._me}waiting for the input pipeline for {waited:.0f} s, before step "
            f"{phase.step}{part}: raise config.data.workers, or check the disk",
            highlight=False,
            soft_wrap=True,
        )

    def _look(self, elapsed: float) -> None:
        self._beat += 1
        phase, since = self._phase, 0.0
        if phase.name:
            since = time.monotonic() - phase.began
        pulse = [self._beat, phase.name, phase.step, round(since, 1), self.limit, self._longest]
        self.store.set(f"pulse/{self.index}", json.dumps(pulse))
        if self.index == 0:
            pulses = {int(i): json.loads(text) for i, text in self.store.all("pulse").items()}
        else:
            pulses = {0: json.loads(self.store.get("pulse/0", self.timeout))}
        self.heard = time.monotonic()
        for who, text in sorted(self.store.all("end").items()):
            self._end(int(who), End(*json.loads(text)))
        self._note_silence(pulses, elapsed)
        if self.index == 0 and (text := stalled(pulses, self.timeout)):
            self._announce(-1, End(text, 1, stalled=True))
            self._end(-1, End(text, 1, stalled=True))

    def _note_silence(self, pulses: dict[int, list], elapsed: float) -> None:
        """Ends the job if a watched process has been silent for too long."""
        for who in range(1, self.count) if self.index == 0 else (0,):
            beat = pulses[who][0] if who in pulses else None
            changed = beat is not None and beat != self._last.get(who)
            self._last[who] = beat if changed else self._last.get(who)
            self._silence[who] = 0.0 if changed else self._silence[who] + elapsed
            if self._silence[who] >= self.timeout:
                text = f"no heartbeat for {self.timeout:.0f} s (killed, frozen or disconnected)"
                self._announce(who, End(text, 1))
                self._end(who, End(text, 1))

    @property
    def _me(self) -> str:
        return f"process {self.index}: " if self.count > 1 else ""

    def _announce(self, who: int, end: End) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # the others then miss the heartbeat
            self.store.set(f"end/{who}", json.dumps(end))

    def _end(self, who: int, end: End) -> None:
        """Prints why, and ends the process. Process 0 hosts the store, and so ends last."""
        if not self._ending.acquire(blocking=False):
            time.sleep(DAY)  # another thread is already ending the process
        if end.stalled:
            faulthandler.dump_traceback(all_threads=True)
        cause = "" if who == self.index else f"ends with process {who}: " if who >= 0 else ""
        advice = "; run again to resume" if end.code == 1 else ""
        text = " ".join(end.text.split())
        sys.stdout.flush()
        if console.is_terminal:
            console.show_cursor(True)  # hidden by a progress bar
        print(f"mae-jax: process {self.index}: {cause}{text}{advice}", file=sys.stderr, flush=True)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            self.store.set(f"bye/{self.index}", "")
            until = time.monotonic() + self.timeout / 2
            awaited = {*range(self.count)} - {who}
            while self.index == 0 and not awaited <= {int(i) for i in self.store.all("bye")}:
                if time.monotonic() > until:
                    break
                time.sleep(self.interval / 4)
        self._leave(end.code)


def stalled(pulses: dict[int, list], timeout: float) -> str | None:
    """Why a job hangs although all of its processes are alive; None if it does not.

    Args:
        pulses: process -> [beat, phase, step, seconds in the phase, seconds that a step may take,
            seconds of the longest step so far].
        timeout: seconds that a process may wait in a step for one that has finished.
    """
    done = [who for who, (_, name, *_) in pulses.items() if name == DONE]
    steps = [pulse for pulse in pulses.values() if pulse[1] == STEP]
    late = [pulse for pulse in steps if pulse[3] > pulse[4]]
    if done and any(pulse[3] > timeout for pulse in steps):
        return f"process {done[0]} has finished, and others still wait for it in step {steps[0][2]}"
    if late and len(late) + len(done) == len(pulses):
        _, _, step, seconds, _, longest = late[0]
        return (
            f"step {step} has not ended in {seconds:.0f} s, and the longest before took "
            f"{longest:.1f} s: a collective operation hangs; the stack of each thread is above"
        )
    return None
