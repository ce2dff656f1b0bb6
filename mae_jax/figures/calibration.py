"""Calibration curve (reliability diagram, Guo et al. 2017, arXiv 1706.04599): accuracy of the
predictions of a classifier against their confidence.
"""

import numpy as np
from matplotlib.figure import Figure as Canvas

from mae_jax.evals.agreement import ratio
from mae_jax.evals.classes import softmax
from mae_jax.figures.confusion import nothing_to_draw, read
from mae_jax.figures.figure import Figure, FigureContext, save

BINS = 15
"""As in the expected calibration error of `classify`."""


def make() -> Figure:
    """Draws `calibration.png`, for the test set, or the training set if there is none: the mean
    confidence and the accuracy in each of 15 bins of the confidence, and the shares of the
    examples in them.
    """
    name = "calibration.png"
    return Figure(
        name="calibration",
        files=(name,),
        draw=lambda context: [save(drawn(context), context.folder / name)],
        check=nothing_to_draw,
    )


def curve(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of the examples in each bin ((b - 1) / 15, b / 15],
    [BINS] each; NaN in an empty bin.

    Args:
        confidence: [N] probability of the predicted class.
        correct: [N] bool.
    """
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence, side="left")
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, values, BINS) for values in (confidence, correct))
    return *(ratio(one, counts) for one in sums), counts


def drawn(context: FigureContext) -> Canvas:
    """The figure."""
    logits, labels = read(context)
    correct = logits.argmax(axis=1) == labels
    confidence, accuracy, counts = curve(softmax(logits).max(axis=1), correct)
    figure = Canvas((4.0, 4.6), dpi=150, layout="constrained")
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axis.plot((0, 100), (0, 100), "--", color="0.6", linewidth=1, label="perfect calibration")
    axis.plot(100 * confidence, 100 * accuracy, "C0o-", markersize=4, label="model")
    axis.set(ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 100))
    axis.legend(fontsize=7)
    edges = 100 * (np.arange(BINS) + 0.5) / BINS
    below.bar(edges, 100 * counts / counts.sum(), width=90 / BINS, color="0.6")
    below.set(xlabel="confidence, %", ylabel="% of examples")
    for one in (axis, below):
        one.spines[["top", "right"]].set_visible(False)
    return figure
