"""Numbers as tables show them: shares in percent, everything else in its unit."""

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


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the heading first, as a table in Markdown."""
    line = lambda cells: f"| {' | '.join(cells)} |\n"
    head, *body = rows
    return line(head) + line(["---"] * len(head)) + "".join(map(line, body))


def drawn(rows: Sequence[Sequence[str]], title: str) -> Table:
    """The same for a terminal."""
    head, *body = rows
    table = Table(*head, title=title)
    for row in body:
        table.add_row(*row)
    return table
