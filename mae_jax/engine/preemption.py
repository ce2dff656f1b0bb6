"""Requests to stop: SIGTERM (preemption, schedulers), SIGHUP (lost terminal or connection) and
Ctrl-C end a run after the running step, with a checkpoint. Outside the training loop, where there
is nothing to save, they end it at once. Either way the exit code is 75.

With several processes, JAX handles a SIGTERM to any of them and makes all stop at the same step;
its handler replaces ours, and the other signals are forwarded as SIGTERM.

Nothing heavy is imported, as commands install the handlers before they import JAX.
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
"""Seconds that compiled code may delay Python's signal handler if there is nothing to save; then
the process ends without it. Schedulers kill after 30 s or more."""
BEFORE = "stopped before the training"


class StopRequests:
    """Context manager that handles the signals; all processes must call `requested(step)` once per
    step. Outside the main thread it handles no signals.

    Args:
        leave: ends the process at once with an exit code, if there is nothing to save. None: raise
            `Preempted` instead, which amid imports may surface as another exception.
    """

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, leave: Callable[[int], None] | None = None):
        self._leave = leave
        self.told = False
        """Whether this process knows of a request."""
        self._raise: str | None = None  # the text of Preempted; None: nothing is raised
        self._saved = False
        self._previous = {}
        self._write: int | None = None  # the end of the pipe that Python's wakeup fd writes to

    def __enter__(self):
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in self.signals:
            handler = signal.getsignal(number)
            # nohup ignores SIGHUP, and a shell's background jobs SIGINT: keep ignoring them.
            ignored = handler is signal.SIG_IGN and number != signal.SIGTERM
            if not ignored and not (number == signal.SIGTERM and _jax_listens()):
                self._previous[number] = signal.SIG_DFL if handler is None else handler
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
            os.close(self._write)  # ends the thread
        self._previous, self._write = {}, None

    def _handle(self, number, frame):
        if number != signal.SIGHUP:  # may come twice, from the terminal and from its shell
            signal.signal(number, self._previous[number])  # a second signal acts at once
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
            show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # hidden by a progress bar
            text = f"{show_cursor}mae-jax: {self._raise}: run again to resume\n"
            os.write(2, text.encode())
            self._leave(PREEMPTED)

    def _watch(self, read: int) -> None:
        """Ends the process if Python cannot run the handler, e.g. while compiled code runs: at the
        first signal if there is nothing to save, else at the second. Runs in a thread.
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
            saved: whether there is nothing to save, so that the process may end without raising.
        """
        with self._inside(text, saved=saved):
            if self.told and not _jax_listens():
                self._end()
                raise Preempted(text)
            yield

    @contextlib.contextmanager
    def later(self):
        """Inside, a request is only recorded, for `requested`."""
        with self._inside(None, saved=False):
            yield self

    @contextlib.contextmanager
    def giving_up(self):
        """A request cuts the code inside short; execution continues after the block."""
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
        """Whether to stop now. Once true it stays true, as JAX reports it at one step only."""
        if _jax_listens():
            from jax.experimental import multihost_utils

            self.told = multihost_utils.reached_preemption_sync_point(step) or self.told
        return self.told

    def polls(self, text: str, step: int) -> Callable[[], None]:
        """A function that raises `Preempted(text)` if a request has come. After `step` steps, all
        processes must call it equally often.
        """
        steps = itertools.count(step + 1)

        def poll() -> None:
            if self.requested(next(steps)):
                raise Preempted(text)

        return poll


def _jax_listens() -> bool:
    """Whether this process is one of several, and JAX handles SIGTERM."""
    distributed = getattr(sys.modules.get("jax"), "distributed", None)  # it may be half imported
    return distributed is not None and distributed.is_initialized()


def stoppable(command: Callable) -> Callable:
    """A decorator for commands, which handles requests to stop from their start, as `args.stop`."""

    @functools.wraps(command)
    def run(args) -> int:
        with StopRequests(os._exit) as args.stop, args.stop.at_once(BEFORE):
            return command(args)

    return run
