"""Numbers as tables show them: shares in percent, everything else in its unit."""

import statistics
from collections.abc import Sequence

from rich.table import Table

UNITS = {"nll": ("nats", 3), "head": ("", 0)}
"""Metric -> unit and decimals of those that are no shares."""


def heading(metric: str) -> str:
    """A metric with its unit."""
    unit, _ = UNITS.get(metric, ("%", 1))
    return f"{metric} {unit}".strip()


def shown(metric: str, value: float) -> str:
    """A value in that unit."""
    if metric in UNITS:
        return f"{value:.{UNITS[metric][1]}f}"
    return f"{100 * value:.1f}"


def spread(metric: str, values: Sequence[float]) -> str:
    """'mean ± sample standard deviation' of repetitions, as shown in tables."""
    if not values:
        return ""
    mean = shown(metric, statistics.fmean(values))
    return f"{mean} ± {shown(metric, statistics.stdev(values))}" if len(values) > 1 else mean


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the heading first, as a table in Markdown."""
    line = lambda cells: f"| {' | '.join(cells)} |\n"
    head, *body = rows
    return line(head) + line(["---"] * len(head)) + "".join(map(line, body))


def drawn(rows: Sequence[Sequence[str]], title: str) -> Table:
    """The same for a terminal."""
    head, *body = rows
    table = Table(*head, title=title, min_width=len(title))
    for row in body:
        table.add_row(*row)
    return table
