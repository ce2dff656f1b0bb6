"""Requests to stop: SIGTERM (preemption, schedulers), SIGHUP (the terminal or connection is gone)
and Ctrl-C end a run after the step that is under way, with a checkpoint; outside the training loop,
where there is nothing to save, they end it at once. Either way the exit code is 75.

With several processes JAX itself listens for SIGTERM to any of them and makes all stop at the same
step; its handler replaces ours, and the other signals are passed on to it.

Imports nothing heavy: commands install the handlers before they import JAX.
"""

import contextlib
import functools
import itertools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from mae_jax.errors import PREEMPTED, Preempted

PATIENCE = 3.0
"""Seconds that compiled code may keep Python from handling a signal where nothing is to be saved.
Schedulers kill after 30 s or more."""
BEFORE = "stopped before the training"


class StopRequests:
    """Context manager that handles the signals; `requested(step)` must be asked once at every step,
    by all processes. Outside the main thread it handles none.

    Args:
        leave: ends the process with an exit code, at once, where nothing is to be saved; by default
            `Preempted` is raised there. Amid imports an exception would come out as another one.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, leave: Callable[[int], None] | None = None):
        self._leave = leave
        self.told = False
        """Whether a request has come, as far as this process knows."""
        self._raise: str | None = None  # the text of Preempted; None: nothing is raised
        self._saved = False
        self._previous = {}
        self._write: int | None = None  # the end of the pipe that the interpreter writes to

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in self.signals:
            found = signal.getsignal(number)
            # Under nohup SIGHUP is ignored, and in the background of a script SIGINT: so they stay.
            ignored = found is signal.SIG_IGN and number != signal.SIGTERM
            if not ignored and not (number == signal.SIGTERM and _jax_listens()):
                self._previous[number] = signal.SIG_DFL if found is None else found
                signal.signal(number, self._handle)
        read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        watch = threading.Thread(target=self._watch, args=(read,), name="stop", daemon=True)
        watch.start()
        return self

    def __exit__(self, *error):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._write is not None:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._write)  # which ends the thread
        self._previous, self._write = {}, None

    def _handle(self, number, frame):
        if number != signal.SIGHUP:  # which may come from the terminal, and from its shell again
            signal.signal(number, self._previous[number])  # a second one acts at once
        if _jax_listens():
            os.kill(os.getpid(), signal.SIGTERM)
            return
        first, self.told = not self.told, True
        if first and self._raise is not None:
            self._end()
            raise Preempted(self._raise)

    def _end(self) -> None:
        """Ends the process if there is nothing to save."""
        if self._leave and self._saved:
            show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar hides it
            text = f"{show_cursor}mae-jax: {self._raise}: run again to resume\n"
            os.write(2, text.encode())
            self._leave(PREEMPTED)

    def _watch(self, read: int) -> None:
        """Ends the process where Python does not come to handle a signal, as while compiled code
        runs: if there is nothing to save, or at the second signal. A thread runs meanwhile.
        """
        seen = Counter()
        with open(read, "rb", buffering=0) as file:
            while number := file.read(1):
                if number[0] not in self._previous or _jax_listens():
                    continue
                seen[number] += 1
                time.sleep(PATIENCE)
                if self._raise is not None and not _jax_listens():
                    self._end()
                elif seen[number] > 1 and number[0] != signal.SIGHUP and self._leave:
                    self._leave(128 + number[0])

    @contextlib.contextmanager
    def at_once(self, text: str, *, saved: bool = True):
        """Inside, a request raises `Preempted(text)`.

        Args:
            saved: whether there is nothing to save, so that the process may also just end.
        """
        with self._inside(text, saved=saved):
            if self.told and not _jax_listens():
                self._end()
                raise Preempted(text)
            yield

    @contextlib.contextmanager
    def later(self):
        """Inside, a request is only noted, for `requested`."""
        with self._inside(None, saved=False):
            yield self

    @contextlib.contextmanager
    def giving_up(self):
        """A request ends what is inside before its end, and the code after it goes on."""
        with contextlib.suppress(Preempted), self._inside("", saved=False):
            yield

    @contextlib.contextmanager
    def _inside(self, text: str | None, *, saved: bool):
        before = self._raise, self._saved
        self._raise, self._saved = text, saved
        try:
            yield
        finally:
            self._raise, self._saved = before

    def requested(self, step: int) -> bool:
        """Whether to stop now. Once true it stays so: JAX says it at one step only."""
        if _jax_listens():
            from jax.experimental import multihost_utils

            self.told = multihost_utils.reached_preemption_sync_point(step) or self.told
        return self.told

    def polls(self, text: str, step: int) -> Callable[[], None]:
        """A function that raises `Preempted(text)` if a request has come; all processes call it
        equally often, after `step` steps.
        """
        steps = itertools.count(step + 1)

        def poll() -> None:
            if self.requested(next(steps)):
                raise Preempted(text)

        return poll


def _jax_listens() -> bool:
    """Whether this process belongs to a job of several."""
    distributed = getattr(sys.modules.get("jax"), "distributed", None)  # it may be half imported
    return distributed is not None and distributed.is_initialized()


def stoppable(command: Callable) -> Callable:
    """Makes a command handle requests to stop from its start on; `args.stop` are the requests."""

    @functools.wraps(command)
    def run(args) -> int:
        with StopRequests(os._exit) as args.stop, args.stop.at_once(BEFORE):
            return command(args)

    return run
