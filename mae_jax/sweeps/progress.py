"""Learning curves of a sweep: metrics during training over examples or time, with a line for each
row; and training losses, with a panel for each row. All fit narrow screens.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from mae_jax.metrics import EVAL
from mae_jax.sweeps.comparison import Finished, by_row, declared, with_baselines
from mae_jax.tables import heading, scaled
from mae_jax.types import Metric

WIDTH = 4.6
"""Inches. Text of 9 points is then readable on a page 360 pixels wide."""

# Seven colors that color-blind readers distinguish (Okabe and Ito 2008, without yellow).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":")
MARKERS = "osD^vP*X<>hd"
POINTS = 150  # maximum of a loss curve; more would not be visible


def style(number: int) -> dict[str, str]:
    """Color, line style and marker of a row, the same in all figures."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": LINES[number // len(COLORS) % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def metrics_on_the_way(runs: Sequence[Finished]) -> dict[str, Metric]:
    """The metrics that the runs of some row logged during training, in their order, without those
    that are declared for no table.
    """
    names = [name for run in runs for line in run.lines for name in line if name.startswith(EVAL)]
    names = [name.removeprefix(EVAL) for name in dict.fromkeys(names)]
    known = declared(runs)
    metrics = {name: known.get(name, Metric()) for name in names}
    logged = lambda name: any(
        len(over_seeds(group, name, examples)[0]) for group in by_row(runs).values()
    )
    return {name: metric for name, metric in metrics.items() if metric.table and logged(name)}


def examples(run: Finished, steps: Sequence[int]) -> list[float]:
    """Number of examples that a run had seen after each of `steps`."""
    return [step * (run.batch_size or 0) for step in steps]


def minutes(run: Finished, steps: Sequence[int]) -> list[float]:
    """Minutes of training after each of `steps`."""
    return list(np.interp(steps, *run.timeline()))


def teraflops(run: Finished, steps: Sequence[int]) -> list[float]:
    """10^12 operations of training up to each of `steps`."""
    return [run.teraflops * step / run.step for step in steps]


AXES = {
    "examples seen": examples,
    "TFLOPs of training": teraflops,
    "minutes of training": minutes,
}
"""Label of a horizontal axis -> function from a run and its steps to positions."""


def axes(runs: Sequence[Finished]) -> list[str]:
    """The labels of `AXES` along which the runs can be drawn."""
    if not any(len(run.timeline()[0]) > 1 for run in runs):
        return []
    known = all(run.teraflops for run in runs)
    return [label for label, axis in AXES.items() if known or axis is not teraflops]


def draw_metric(
    runs: Sequence[Finished], name: str, metric: Metric, label: str, path: Path
) -> Path:
    """Draws a metric with a line for each row, the mean over its seeds, and a band, their range.

    Args:
        runs: of one column of the sweep.
        name: of the metric, one of `metrics_on_the_way`.
        label: one of `AXES`.
        path: of the SVG.

    Returns:
        `path`.
    """
    lines = {}
    for number, (row, group) in enumerate(by_row(runs).items()):
        x, values = over_seeds(group, name, AXES[label])
        if len(x):
            lines[row] = (x, scaled(metric, values), style(number))
    baselines: dict[str, list[float]] = {}
    for run in next(iter(with_baselines(runs).values()), ()):
        for baseline, values in run.baselines.items():
            if name in values:
                baselines.setdefault(baseline, []).append(values[name])
    columns = 2 if max(map(len, [*lines, *baselines])) < 24 else 1
    below = 0.19 * -(-(len(lines) + len(baselines)) // columns)
    figure = Figure((WIDTH, 3.5 + below), layout="constrained")
    axis = figure.subplots()
    ends = {row: values[-1].mean() for row, (_, values, _) in lines.items()}
    for row in sorted(ends, key=ends.get, reverse=not metric.lower_is_better):  # best first
        x, values, look = lines[row]
        axis.plot(x, values.mean(1), label=row, linewidth=1.5, markersize=4.5, **look)
        if values.shape[1] > 1:
            axis.fill_between(x, values.min(1), values.max(1), color=look["color"], alpha=0.15)
    for (baseline, values), dashes in zip(baselines.items(), ("-.", ":"), strict=False):
        value = scaled(metric, np.mean(values))
        axis.axhline(value, color="0.45", linestyle=dashes, label=baseline)
    axis.set_xlabel(label, fontsize=10)
    axis.set_title(f"{heading(name, metric)}, held-out images", fontsize=10, loc="left")
    if AXES[label] is examples:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(6))
    figure.legend(
        loc="outside lower left", ncols=columns, fontsize=9, frameon=False, handlelength=2.8
    )
    return save_svg(figure, path)


def over_seeds(
    group: Sequence[Finished], name: str, axis: Callable
) -> tuple[np.ndarray, np.ndarray]:
    """Mean positions [points] and unscaled values [points, seeds] of a metric at the steps where
    all seeds were evaluated.
    """
    curves = []
    for run in group:
        points = {line["step"]: line[EVAL + name] for line in run.lines if EVAL + name in line}
        if points and name in run.own:
            points[run.step] = run.own[name]
        if points:
            curves.append((run, points))
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    steps = sorted(set.intersection(*(set(points) for _, points in curves)))
    x = np.mean([axis(run, steps) for run, _ in curves], axis=0)
    return x, np.array([[points[step] for _, points in curves] for step in steps])


def draw_losses(runs: Sequence[Finished], path: Path) -> Path:
    """Draws the training loss over the examples seen, a panel for each row, a line for each seed.

    Args:
        runs: of one column of the sweep.
        path: of the SVG.

    Returns:
        `path`.
    """
    rows = by_row([run for run in runs if any("loss" in line for line in run.lines)])
    numbers = {row: number for number, row in enumerate(by_row(runs))}
    count = -(-len(rows) // 2)
    figure = Figure((WIDTH, 1.35 * count + 0.25), layout="constrained")
    axes = figure.subplots(count, 2, squeeze=False, sharex=True)
    for axis in axes.flat[len(rows) :]:
        axis.set_axis_off()
    for axis, (row, group) in zip(axes.flat, rows.items(), strict=False):
        look = style(numbers[row])
        for run in group:
            lines = [line for line in run.lines if "loss" in line]
            lines = lines[:: -(-len(lines) // POINTS)]
            steps, losses = zip(*((line["step"], line["loss"]) for line in lines), strict=True)
            axis.plot(examples(run, steps), losses, color=look["color"], linewidth=0.9)
        axis.set_title(row, fontsize=9, loc="left")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.yaxis.set_major_locator(MaxNLocator(3))
    figure.supxlabel("examples seen", fontsize=10)
    return save_svg(figure, path)


def save_svg(figure: Figure, path: Path) -> Path:
    """Writes an SVG that depends only on the numbers, not on date or random ids; returns `path`."""
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="0.92", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=9)
    with matplotlib.rc_context({"svg.hashsalt": "mae_jax"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
