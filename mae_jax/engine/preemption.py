"""Being told to stop: SIGTERM (preemption, schedulers) and Ctrl-C end a run after the step that is
under way, with a checkpoint.

With several processes JAX itself listens for SIGTERM to any of them and makes all stop at the same
step; a handler of ours would silence it, so none is installed then.
"""

import signal

import jax
from jax.experimental import multihost_utils


class StopRequests:
    """Context manager; `requested(step)` must be asked once at every step, by all processes."""

    signals = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self._stop = False
        self._previous = {}

    def __enter__(self):
        if not jax.distributed.is_initialized():
            self._previous = {s: signal.signal(s, self._handle) for s in self.signals}
        return self

    def __exit__(self, *error):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        self._stop = True
        signal.signal(number, self._previous[number])  # a second one acts at once

    def requested(self, step: int) -> bool:
        """Whether to stop now. Once true it stays so: JAX says it at one step only."""
        if jax.distributed.is_initialized():
            self._stop = multihost_utils.reached_preemption_sync_point(step) or self._stop
        return self._stop
