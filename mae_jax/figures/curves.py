"""Learning curves of one run: training loss and learning rate, and the metrics of its evaluations,
with the baselines (raw pixels, the encoder before training) as horizontal lines.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from mae_jax.figures.figure import Figure, FigureContext, save
from mae_jax.metrics import EVAL, filled
from mae_jax.tables import scaled
from mae_jax.types import Metric


def make() -> Figure:
    """Draws loss and learning rate in the left panel, then the metrics that comparisons show, one
    panel per unit.
    """
    draw = lambda context: [save(drawn(context), context.folder / "curves.png")]
    return Figure(name="curves", files=("curves.png",), draw=draw)


def drawn(context: FigureContext) -> Canvas:
    """The learning curves as a figure."""
    names = sorted({name for line in context.lines for name in line if name.startswith(EVAL)})
    metrics = filled(context.metrics, [name.removeprefix(EVAL) for name in names])
    units = dict.fromkeys(metric.unit for metric in metrics.values() if metric.table)
    figure = Canvas((5.0 * (1 + len(units)), 3.6), dpi=150, layout="constrained")
    first, *rest = figure.subplots(1, 1 + len(units), squeeze=False)[0]
    losses = [line for line in context.lines if "loss" in line]
    steps = [line["step"] for line in losses]
    first.plot(steps, [line["loss"] for line in losses], color="C0", linewidth=1.2)
    first.set(xlabel="step", title="training loss")
    rates = first.twinx()
    rates.plot(steps, [line["lr"] for line in losses], color="0.6", linewidth=0.8)
    rates.set_ylabel("learning rate (gray)", color="0.4")
    rates.set_ylim(bottom=0)
    for axis, unit in zip(rest, units, strict=True):
        shown = [(name, m) for name, m in metrics.items() if m.unit == unit and m.table]
        for number, (name, metric) in enumerate(shown):
            _plot(axis, context, name, metric, f"C{number}")
        axis.set(xlabel="step", title="held-out images", ylabel=unit)
        if unit == "%":
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(fontsize=7)
    for axis in (first, *rest):
        axis.spines["top"].set_visible(False)
    return figure


def _plot(axis: Axes, context: FigureContext, name: str, metric: Metric, color: str) -> None:
    """Plots a metric during training and at the end, and its baselines as horizontal lines."""
    points = {line["step"]: line[EVAL + name] for line in context.lines if EVAL + name in line}
    *baselines, final = context.results.items() or [("", {})]
    if name in final[1]:
        points[context.step] = final[1][name]
    values = [scaled(metric, value) for value in points.values()]
    axis.plot(list(points), values, f"{color}o-", markersize=3, label=name)
    baselines = [item for item in baselines if name in item[1]]
    for (baseline, metrics), style in zip(baselines, ("--", ":"), strict=False):
        axis.axhline(
            scaled(metric, metrics[name]),
            color=color,
            linestyle=style,
            linewidth=1,
            label=f"{name}, {baseline}",
        )
