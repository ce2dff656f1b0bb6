"""A trace of a few steps, for `xprof`, TensorBoard's profile tab, or https://ui.perfetto.dev."""

import re
from pathlib import Path

import jax

from mae_jax.types import UserError


class Profile:
    """Context manager around a loop, which asks `due` before each step. Every process traces what
    it does itself; of several, each into a folder of its own.

    Args:
        steps: 'FIRST:LAST', the steps to trace, both of them too; empty: none. The first steps of a
            process compile and fill caches: start at the tenth or so.
        total: steps of the run.
        folder: where the trace is written.

    Raises:
        UserError: no such text, or steps that the run has not.
    """

    def __init__(self, *, steps: str, total: int, folder: Path = Path("profile")):
        found = re.fullmatch(r"(\d+):(\d+)", steps)
        if steps and not (found and 1 <= int(found[1]) <= int(found[2])):
            raise UserError(f"config.profile={steps!r}: write FIRST:LAST, e.g. 20:22; empty: none")
        self.first, self.last = (int(found[1]), int(found[2])) if found else (0, 0)
        if self.first > total:
            raise UserError(f"config.profile={steps!r}: the run has {total} steps")
        self.folder, self.running = folder, False

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        if kind is None:  # of a failure there are more important things to say
            self.end()

    def due(self, step: int) -> bool:
        """Whether to `turn` before this step, which must wait until nothing is under way."""
        return self.first > 0 and (self.first <= step <= self.last) != self.running

    def end(self) -> None:
        """Writes a trace that is not at its last step yet."""
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
