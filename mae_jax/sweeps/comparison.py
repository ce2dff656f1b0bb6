"""Tables that compare the rows of a sweep: metrics and costs."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mae_jax.metrics import filled
from mae_jax.tables import heading, shown, spread
from mae_jax.types import Metric


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One finished run of a sweep.

    Attributes:
        row: what is compared, e.g. a method.
        column: the condition of the comparison.
        seed: the repetition.
        step: number of training steps.
        results: representation -> metric -> value: the baselines, then the run's own.
        metrics: metric -> declaration.
        lines: lines of metrics.jsonl.
        batch_size: images per step; None: not known.
        costs: contents of costs.json; may be empty.
    """

    row: str
    column: str
    seed: str
    step: int
    results: Mapping[str, Mapping[str, float]]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    lines: Sequence[Mapping[str, float]] = ()
    batch_size: int | None = None
    costs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """ROW/COLUMN/SEED."""
        return f"{self.row}/{self.column}/{self.seed}"

    def record(self) -> dict[str, Any]:
        """The line of this run in the sweep's results.jsonl."""
        metrics = {name: metric._asdict() for name, metric in self.metrics.items()}
        key = dict(row=self.row, column=self.column, seed=self.seed)
        return key | dict(step=self.step, results=self.results, metrics=metrics)

    @property
    def own(self) -> Mapping[str, float]:
        """Metric -> value of the run's own representation."""
        return list(self.results.values())[-1]

    @property
    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        """Baseline -> metric -> value."""
        return dict(list(self.results.items())[:-1])

    @property
    def examples(self) -> int:
        """Number of training examples seen; 0: not known."""
        return self.step * (self.batch_size or 0)

    @property
    def teraflops(self) -> float:
        """10^12 operations of training; 0: not known."""
        return self.examples * (self.costs.get("gflops_per_image") or 0) / 1e3

    def timeline(self) -> tuple[list[int], list[float]]:
        """Steps, and minutes of training up to each of them, from the logged images/s."""
        steps, minutes = [0], [0.0]
        for line in self.lines:
            if line.get("images_per_s") and self.batch_size:
                seconds = (line["step"] - steps[-1]) * self.batch_size / line["images_per_s"]
                steps.append(line["step"])
                minutes.append(minutes[-1] + seconds / 60)
        return steps, minutes


def by_row(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """The runs of each row, in their order."""
    rows: dict[str, list[Finished]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    return rows


def with_baselines(runs: Sequence[Finished]) -> dict[str, list[Finished]]:
    """Column -> the runs of its first row with baselines."""
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        group = groups.setdefault(run.column, []) if run.baselines else []
        if not group or group[0].row == run.row:
            group.append(run)
    return groups


def declared(runs: Sequence[Finished]) -> dict[str, Metric]:
    """Metric -> its declaration, for all metrics of the runs; of several, that of the first run."""
    metrics: dict[str, Metric] = {}
    for run in runs:
        names = (name for values in run.results.values() for name in values)
        metrics = filled(run.metrics, names) | metrics
    return metrics


def comparison_table(
    runs: Sequence[Finished], table: str = "main", *, terminal: bool = False
) -> list[list[str]]:
    """Rows of Markdown cells: the heading, the baselines, then the rows of the sweep. A cell is the
    mean ± sample standard deviation over the seeds of a metric in a column. The best means of a
    column are bold, baselines included. Empty if no metric is in this table.

    Args:
        runs: of a sweep.
        table: shows metrics that are declared for this table.
        terminal: for a terminal instead: without markup, and the baselines last.
    """
    known = declared(runs)
    metrics = dict.fromkeys(name for run in runs for name in run.own if known[name].table == table)
    keys = [(run.column, metric) for run in runs for metric in metrics if metric in run.own]
    columns = list(dict.fromkeys(run.column for run in runs))
    keys = sorted(dict.fromkeys(keys), key=lambda key: columns.index(key[0]))
    groups = with_baselines(runs)
    names = dict.fromkeys(name for group in groups.values() for name in group[0].baselines)
    # A non-breaking space keeps a unit on the line of its metric.
    escaped = str if terminal else plain
    titles = [f"{escaped(c)}: {heading(m, known[m]).replace(' ', chr(160))}" for c, m in keys]
    lines: dict[tuple[bool, str], list[str]] = {}  # (whether it is a baseline, its name) -> cells
    for column, metric in keys:
        baselines = [run.baselines for run in groups.get(column, ())]
        values = {
            (True, name): [b[name][metric] for b in baselines if metric in b.get(name, {})]
            for name in names
        } | {
            (False, row): [
                run.own[metric] for run in group if (run.column == column and metric in run.own)
            ]
            for row, group in by_row(runs).items()
        }
        best = [] if terminal else _best(known[metric], values)
        for key, numbers in values.items():
            cell = spread(known[metric], numbers)
            lines.setdefault(key, []).append(f"**{cell}**" if key in best else cell)
    order = sorted(lines, key=lambda key: key[0] == terminal)  # stable
    cells = [["", *titles], *([escaped(key[1]), *lines[key]] for key in order)]
    return [line for line in cells if any(line[1:])]


def _best(metric: Metric, values: Mapping[Any, Sequence[float]]) -> list[Any]:
    """The rows with the best mean, rounded as in the table."""
    means = {
        row: float(shown(metric, statistics.fmean(numbers)))
        for row, numbers in values.items()
        if numbers
    }
    finite = [mean for mean in means.values() if math.isfinite(mean)]
    if len(means) < 2 or not finite or not metric.ranked:
        return []
    best = (min if metric.lower_is_better else max)(finite)
    return [row for row, mean in means.items() if mean == best]


def cost_table(runs: Sequence[Finished]) -> list[list[str]]:
    """Rows of Markdown cells, the heading first: the median cost of each row over its seeds.
    Measures that no run has are left out.

    Args:
        runs: of one column of the sweep.
    """
    measures = {
        "training, minutes": lambda run: run.timeline()[1][-1],
        "images/s": _speed,
        "GFLOPs per image": lambda run: run.costs.get("gflops_per_image"),
        "memory of a step, MB": lambda run: run.costs.get("step_megabytes"),
        "parameters, M": lambda run: run.costs.get("parameters", 0) / 1e6,
        "of the encoder, M": lambda run: run.costs.get("encoder_parameters", 0) / 1e6,
        "examples seen": lambda run: run.examples,
        "TFLOPs of training": lambda run: run.teraflops,
    }
    rows = by_row(runs)
    table = [["", *map(plain, rows)]]
    for name, measure in measures.items():
        cells = []
        for group in rows.values():
            values = [value for value in map(measure, group) if value]
            cells.append(number(statistics.median(values)) if values else "")
        if any(cells):
            table.append([name, *cells])
    return [list(row) for row in zip(*table, strict=True)]


def _speed(run: Finished) -> float | None:
    speeds = [line["images_per_s"] for line in run.lines if "images_per_s" in line]
    return statistics.median(speeds) if speeds else None


def number(value: float) -> str:
    """Three significant digits, or all digits before the point: '0.0123', '12.3', '1,235'."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plain(text: str) -> str:
    """Escapes characters that Markdown would interpret, in tables too."""
    return "".join(f"\\{character}" if character in "\\`*[]<|" else character for character in text)
