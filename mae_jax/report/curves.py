"""Learning curves of one run: its loss and learning rate, and what its features were worth on the
way, beside raw pixels and the encoder before training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

EVAL = "eval/"


def draw_curves(
    lines: Sequence[Mapping[str, float]], results: Mapping[str, Mapping[str, float]], path: Path
) -> Path:
    """Draws loss and learning rate on the left, accuracies on the right.

    Args:
        lines: of metrics.jsonl.
        results: representation -> metric -> accuracy, drawn as dashed lines, but for the last,
            which is the run's own.
        path: of the PNG.

    Returns:
        `path`.
    """
    losses = [line for line in lines if "loss" in line]
    metrics = sorted({name for line in lines for name in line if name.startswith(EVAL)})
    figure = Figure((5.0 * (1 + bool(metrics)), 3.6), dpi=150, layout="constrained")
    axes = figure.subplots(1, 1 + bool(metrics), squeeze=False)[0]
    steps = [line["step"] for line in losses]
    axes[0].plot(steps, [line["loss"] for line in losses], color="C0", linewidth=1.2)
    axes[0].set(xlabel="step", title="training loss")
    rates = axes[0].twinx()
    rates.plot(steps, [line["lr"] for line in losses], color="0.6", linewidth=0.8)
    rates.set_ylabel("learning rate (grey)", color="0.4")
    rates.set_ylim(bottom=0)
    for number, metric in enumerate(metrics):
        points = {line["step"]: line[metric] for line in lines if metric in line}
        metric = metric.removeprefix(EVAL)
        for values in list(results.values())[-1:]:  # the run's own, at its end
            points |= {steps[-1]: values[metric]} if metric in values else {}
        accuracies = [100 * value for value in points.values()]
        axes[1].plot(list(points), accuracies, f"C{number}o-", markersize=3, label=metric)
        baselines = [item for item in list(results.items())[:-1] if metric in item[1]]
        for (name, values), style in zip(baselines, ("--", ":"), strict=False):
            axes[1].axhline(
                100 * values[metric],
                color=f"C{number}",
                linestyle=style,
                linewidth=1,
                label=f"{metric}, {name}",
            )
    if metrics:
        axes[1].set(xlabel="step", title="accuracy on held-out images, %")
        axes[1].yaxis.set_major_locator(MaxNLocator(integer=True))
        axes[1].legend(fontsize=7)
    for axis in axes:
        axis.spines["top"].set_visible(False)
    figure.savefig(path)
    return path
