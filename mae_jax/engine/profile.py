"""A profiler trace of a few steps, for `xprof`, TensorBoard or https://ui.perfetto.dev."""

import re
from pathlib import Path

import jax

from mae_jax.types import UserError


class Profile:
    """Context manager around a training loop, which calls `due` before each step. Every process
    traces its own work; several processes write a folder each.

    Args:
        steps: 'FIRST:LAST', the steps to trace, inclusive; empty: none. The first steps of a
            process compile and fill caches, so start at about the tenth.
        total: steps of the run.
        folder: folder to write the trace into.

    Raises:
        UserError: a malformed text, or a first step after the end of the run.
    """

    def __init__(self, *, steps: str, total: int, folder: Path = Path("profile")):
        match = re.fullmatch(r"(\d+):(\d+)", steps)
        if steps and not (match and 1 <= int(match[1]) <= int(match[2])):
            raise UserError(f"config.profile={steps!r}: write FIRST:LAST, e.g. 20:22; empty: none")
        self.first, self.last = (int(match[1]), int(match[2])) if match else (0, 0)
        if self.first > total:
            raise UserError(f"config.profile={steps!r}: the run has {total} steps")
        self.folder, self.running = folder, False

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        if kind is None:  # after an exception, the exception matters more
            self.end()

    def due(self, step: int) -> bool:
        """Whether to call `turn` before this step, once all previous steps are complete."""
        return self.first > 0 and (self.first <= step <= self.last) != self.running

    def end(self) -> None:
        """Ends and writes a running trace."""
        if self.running:
            self.turn()

    def turn(self) -> None:
        """Starts the trace, or ends and writes it."""
        if self.running:
            jax.profiler.stop_trace()
        else:
            alone = jax.process_count() == 1
            folder = self.folder if alone else self.folder / f"process_{jax.process_index()}"
            jax.profiler.start_trace(folder, create_perfetto_trace=True)
        self.running = not self.running
