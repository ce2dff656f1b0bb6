"""What a run says while it trains: `metrics.jsonl`, TensorBoard events, and a progress bar on a
terminal or plain lines elsewhere.
"""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from mae_jax.types import UserError

EVAL = "eval/"
"""What the names of evaluation results begin with."""

console = Console(stderr=True)


class Log:
    """Writes the metrics of one run; on processes other than the first it does nothing.

    Use as a context manager.

    Args:
        workdir: of the run.
        start: steps done so far: later lines, written by a run that was cut off, are dropped.
        total: steps of the whole run.
        every: steps between two lines of training metrics.
    """

    def __init__(self, *, workdir: Path, start: int, total: int, every: int):
        if every < 1:
            raise UserError(f"config.log.every={every} must be at least 1")
        self.every, self.total = every, total
        self.active = jax.process_index() == 0
        self.path = workdir / "metrics.jsonl"
        if not self.active:
            return
        drop_after(self.path, start)
        self.file = self.path.open("a", encoding="utf-8")
        folder = str(workdir / "events")
        self.events = SummaryWriter(folder, purge_step=start + 1, max_queue=1000)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("step", total=total, completed=start, status="")

    def __enter__(self):
        if self.active:
            self.progress.start()
        return self

    def __exit__(self, *error):
        if self.active:
            self.progress.stop()
            self.file.close()
            if self._events_written():
                with contextlib.suppress(OSError):  # what failed before has more to say
                    self.events.close()

    def _events_written(self) -> bool:
        """Whether the thread that writes events for TensorBoard lives: when it cannot write, it
        ends, and whoever gives it more or closes it waits for ever.
        """
        return self.events.file_writer.event_writer._worker.is_alive()

    def has_evaluation(self, step: int) -> bool:
        """Whether the results of an evaluation after `step` steps were written."""
        lines = [line for line in read(self.path) if line["step"] == step]
        return any(name.startswith(EVAL) for line in lines for name in line)

    def advance(self, step: int) -> None:
        """Moves the bar to `step` steps done."""
        if self.active:
            self.progress.update(self.task, completed=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Records values after `step` steps, everywhere."""
        if not self.active:
            return
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        if not self._events_written():
            raise UserError(
                f"disk full? The events for TensorBoard beside {self.path} could not be written: "
                "free some space and start again to go on"
            )
        for name, value in values.items():
            self.events.add_scalar(name, value, step)
        status = describe(values)
        if console.is_terminal:
            self.progress.update(self.task, completed=step, status=status)
        else:
            print(f"step {step}/{self.total}  {status}", file=sys.stderr, flush=True)


def describe(values: Mapping[str, float]) -> str:
    """One line for people: the data-wait share in per cent, other values in four digits."""
    shown = {k: v for k, v in values.items() if v or not k.startswith("skipped")}
    return "  ".join(
        f"data wait {100 * v:.0f}%"
        if k == "data_wait"
        else f"{k.removeprefix(EVAL).replace('_', ' ')} {v:.4g}"
        for k, v in shown.items()
    )


def drop_after(path: Path, step: int) -> None:
    """Removes the lines of a metrics file that are later than `step`, and a last one cut short."""
    kept = [json.dumps(line) for line in read(path) if line["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)


def read(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics file; none if it is missing. A last one cut short is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    parsed = []
    for number, line in enumerate(lines, 1):
        try:
            parsed.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise
    return parsed
