"""Formats metrics for tables: fractions in percent, other values in their unit."""

import statistics
from collections.abc import Mapping, Sequence

from rich.table import Table

from mae_jax.types import Metric


def heading(name: str, metric: Metric) -> str:
    """The name of a metric with its unit."""
    return f"{name} {metric.unit}".strip()


def scaled(metric: Metric, value):
    """A value or an array of values in the metric's unit, not rounded."""
    return 100 * value if metric.unit == "%" else value


def shown(metric: Metric, value: float) -> str:
    """A value in the metric's unit, rounded to its decimals."""
    return f"{scaled(metric, value):.{metric.decimals}f}"


def spread(metric: Metric, values: Sequence[float]) -> str:
    """'mean ± sample standard deviation' over repetitions; only the mean if there is one value."""
    if not values:
        return ""
    mean = shown(metric, statistics.fmean(values))
    return f"{mean} ± {shown(metric, statistics.stdev(values))}" if len(values) > 1 else mean


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of rows of text, the heading first."""
    line = lambda cells: f"| {' | '.join(cells)} |\n"
    head, *body = rows
    return line(head) + line(["---"] * len(head)) + "".join(map(line, body))


def drawn(rows: Sequence[Sequence[str]], title: str) -> Table:
    """A terminal table of rows of text, the heading first."""
    head, *body = rows
    table = Table(*head, title=title, min_width=len(title))
    for row in body:
        table.add_row(*row)
    return table


def results_table(
    results: Mapping[str, Mapping[str, float]], metrics: Mapping[str, Metric], title: str
) -> Table:
    """A terminal table of all results of a run, see `results_rows`."""
    return drawn(results_rows(results, metrics), title)


def results_rows(
    results: Mapping[str, Mapping[str, float]], metrics: Mapping[str, Metric]
) -> list[Sequence[str]]:
    """All results of a run as rows of text, the heading first; transposed if there are 6 metrics or
    more.

    Args:
        results: representation -> metric -> value.
        metrics: metric -> its declaration.
    """
    names = dict.fromkeys(name for values in results.values() for name in values)
    declared = {name: metrics[name] for name in names}
    rows = [["features", *(heading(name, metric) for name, metric in declared.items())]]
    for representation, values in results.items():
        cells = (shown(m, values[name]) if name in values else "–" for name, m in declared.items())
        rows.append([representation, *cells])
    return rows if len(declared) < 6 else list(zip(*rows, strict=True))
