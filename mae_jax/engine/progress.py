"""The progress bar of a run, for any terminal width: bar, steps done, time left, and as many of the
newest metrics as fit.
"""

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

EVAL = "eval/"
"""Prefix of evaluation metrics."""
FIRST = ("loss", "skipped", "bad_images", "images_per_s", "data_wait")
"""Metrics that a narrow terminal shows first."""
LAST = ("lr", "grad_norm", "skipped_in_a_row")
"""Metrics that a narrow terminal leaves out first."""
BAR, CLOCK = 8, 9
"""Widths of the shortest bar and of the time left, for runs of up to 999 hours, in columns."""
PERIOD = 600.0
"""Seconds over which the speed is averaged: a step may take minutes."""


def on_terminal(console: Console) -> bool:
    """Whether to draw a bar: in a file or a dumb terminal it would be noise."""
    return console.is_interactive and sys.stderr.isatty()


def make_progress(console: Console, *, visible: bool) -> Progress:
    """A bar for one task, whose field `values` are the newest metrics.

    Args:
        console: console to draw on.
        visible: whether to draw the bar; the time left is estimated in any case.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=BAR)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Newest(console),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        console=console,
        expand=True,
        disable=not visible,
        speed_estimate_period=PERIOD,
    )


class Newest(ProgressColumn):
    """The newest metrics, as many as fit beside the other columns."""

    def __init__(self, console: Console):
        super().__init__(Column(no_wrap=True))
        self._console = console

    def render(self, task: Task) -> Text:
        """Called by rich."""
        steps = 2 * len(str(task.total)) + 1
        others = len(task.description) + 1 + BAR + 1 + steps + 1 + 1 + CLOCK
        return Text(describe(task.fields["values"], self._console.width - others))


def describe(values: Mapping[str, float], width: int | None = None) -> str:
    """Metrics as one line: the data-wait share in percent, other values with four digits.

    Args:
        values: metric -> value; counts of skipped steps are left out while they are 0.
        width: columns; the least important metrics are left out until the line fits.
    """
    shown = {k: v for k, v in values.items() if v or not k.startswith("skipped")}
    texts = {name: _text(name, value) for name, value in shown.items()}
    while width is not None and texts and len("  ".join(texts.values())) > width:
        del texts[max(texts, key=_rank)]
    return "  ".join(texts.values())


def _rank(name: str) -> int:
    """Rank of a metric; if space is short, those of highest rank are left out first."""
    if name in FIRST:
        return FIRST.index(name)
    return len(FIRST) + (1 + LAST.index(name) if name in LAST else 0)


def _text(name: str, value: float) -> str:
    if name == "data_wait":
        return f"data wait {100 * value:.0f}%"
    if name == "images_per_s":
        return f"images/s {value:.0f}" if value >= 1000 else f"images/s {value:.4g}"
    return f"{name.removeprefix(EVAL).replace('_', ' ')} {value:.4g}"


def clock(seconds: float) -> str:
    """'1:02:03'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
