"""The log of a training run: `metrics.jsonl`, the writers (TensorBoard, ...), and a progress bar on
a terminal or plain lines elsewhere.
"""

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from mae_jax.engine.progress import EVAL, clock, describe, make_progress, on_terminal
from mae_jax.types import UserError
from mae_jax.writers.delivery import Writers

console = Console(stderr=True)
logger = logging.getLogger(__name__)


class Log:
    """Writes the metrics of one run; does nothing in processes other than the first.

    Use as a context manager.

    Args:
        workdir: workdir of the run.
        start: steps done so far; lines of later steps, left by an interrupted run, are dropped.
        total: steps of the whole run.
        every: steps between two lines of training metrics.
        writers: receive all values; started here, if they have not been.
    """

    def __init__(self, *, workdir: Path, start: int, total: int, every: int, writers: Writers):
        if every < 1:
            raise UserError(f"config.log.every={every} must be at least 1")
        self.every, self.total, self.writers = every, total, writers
        self.active = jax.process_index() == 0
        self.path = workdir / "metrics.jsonl"
        if not self.active:
            return
        drop_after(self.path, start)
        self.file = self.path.open("a", encoding="utf-8")
        writers.start(start, lambda: read(self.path))
        self.watched = on_terminal(console)
        self.progress = make_progress(console, visible=self.watched)
        self.task = self.progress.add_task("step", total=total, completed=start, values={})

    def __enter__(self):
        if self.active:
            self.progress.start()
        return self

    def __exit__(self, *error):
        if self.active:
            self.progress.stop()
            self.file.close()

    def has_evaluation(self, step: int) -> bool:
        """Whether the log has evaluation results after `step` steps."""
        lines = [line for line in read(self.path) if line["step"] == step]
        return any(name.startswith(EVAL) for line in lines for name in line)

    def advance(self, step: int) -> None:
        """Moves the progress bar to `step` steps done."""
        if self.active:
            self.progress.update(self.task, completed=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Records values after `step` steps in the file, in the writers and on the screen."""
        if not self.active:
            return
        now = time.time()
        line = {"step": step, "time": round(now, 3), **values}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.writers.scalars(step, values, now)
        evaluation = any(name.startswith(EVAL) for name in values)
        text = f"step {step}/{self.total}  {describe(values)}"
        if not self.watched:
            left = None if evaluation else self.progress.tasks[0].time_remaining
            text += "" if left is None else f"  {clock(left)} left"
            print(text, file=sys.stderr, flush=True)
        elif evaluation:
            console.print(text, highlight=False, markup=False, soft_wrap=True)  # above the bar
        else:
            self.progress.update(self.task, completed=step, values=values)

    def picture(self, step: int, name: str, pixels: np.ndarray, text: str) -> None:
        """Sends a picture to the writers.

        Args:
            step: steps done.
            name: name of the figure.
            pixels: [H, W, 3] uint8.
            text: description in Markdown.
        """
        self.writers.image(step, name, pixels, text)


def report(line: str) -> None:
    """Prints a line above the progress bar."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def drop_after(path: Path, step: int) -> None:
    """Removes the lines of a metrics file after `step`, and a truncated last line. If lines are
    damaged, a copy of the file is kept under another name.
    """
    lines, damaged = _parse(path)
    if damaged:
        number = len(list(path.parent.glob(f"{path.stem}.damaged-*")))
        aside = path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")
        shutil.copyfile(path, aside)
        logger.warning("%s; the file as it was is now %s", _damage(path, damaged), aside.name)
    kept = [json.dumps(line) for line in lines if line["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)


def read(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics file; none if it is missing. A truncated last line is left out; so are
    damaged lines, with a warning.
    """
    lines, damaged = _parse(path)
    if damaged:
        logger.warning("%s", _damage(path, damaged))
    return lines


def _damage(path: Path, damaged: Sequence[int]) -> str:
    numbers = ", ".join(map(str, damaged[:10])) + (", ..." if len(damaged) > 10 else "")
    return f"{path}: left out {len(damaged)} damaged line(s), number {numbers}"


def _parse(path: Path) -> tuple[list[dict[str, float]], list[int]]:
    """The intact lines, one for each step and set of names, and the numbers of damaged lines."""
    parsed: dict[tuple, dict[str, float]] = {}
    damaged = []
    *lines, rest = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate([*lines, rest], 1):
        content = line.strip(b"\0 \t\r")  # a crash may leave zeros in place of a line
        if not content and not line.strip():
            continue
        try:
            values = json.loads(content.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            values = None
        key = _key(values)
        if key is not None:
            damaged += [number] if key in parsed else []
            parsed[key] = values
        elif number <= len(lines):
            damaged.append(number)
    return list(parsed.values()), damaged


def _key(values) -> tuple | None:
    """Step and names of a line; None if it is not a line of metrics."""
    number = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(values, dict) or not all(map(number, values.values())):
        return None
    step = values.get("step")
    return (step, *sorted(values)) if isinstance(step, int) and step >= 0 else None
