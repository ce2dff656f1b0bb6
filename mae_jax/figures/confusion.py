"""Confusion matrix of a classifier: for each true class, the shares of its predictions."""

import numpy as np
from matplotlib.figure import Figure as Canvas

from mae_jax.evals.agreement import confusion, ratio
from mae_jax.evals.classify import classified
from mae_jax.figures.figure import Figure, FigureContext, save
from mae_jax.types import Method

NAMED = 40
"""Largest number of classes whose names and numbers are written."""


def make() -> Figure:
    """Draws `confusion.png`, for the test set, or the training set if there is none. Each row is a
    true class, and sums to 100%.
    """
    name = "confusion.png"
    return Figure(
        name="confusion",
        files=(name,),
        draw=lambda context: [save(drawn(context), context.folder / name)],
        check=nothing_to_draw,
    )


def nothing_to_draw(method: Method) -> str | None:
    """Why a method has no confusion matrix; None: it has one."""
    classifies = "logits" in method.offers() and "label" in method.labels()
    return None if classifies else "the method does not predict one class per image"


def read(context: FigureContext) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, K] and labels [N] of the split that is drawn."""
    predict, split = context.predict(("logits",)), context.split
    parts = [classified(predict, batch, split=split) for batch in context.data.eval(split)]
    logits, labels = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    return logits, labels


def drawn(context: FigureContext) -> Canvas:
    """The figure."""
    logits, labels = read(context)
    classes = logits.shape[1]
    matrix = confusion(labels, logits.argmax(axis=1), np.ones(len(labels)), classes)
    shares = 100 * ratio(matrix, np.repeat(matrix.sum(axis=1, keepdims=True), classes, axis=1))
    side = 2.2 + min(classes, NAMED) * 0.34
    figure = Canvas((side + 0.4, side), dpi=150, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axis.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, ax=axis, label="% of the true class", shrink=0.8)
    if classes > NAMED:
        return figure
    known = context.data.source(context.split).names.get("label", ())
    names = known or [str(number) for number in range(classes)]
    axis.set_xticks(range(classes), names, rotation=90, fontsize=7)
    axis.set_yticks(range(classes), names, fontsize=7)
    for row, column in np.argwhere(matrix > 0):
        color = "white" if shares[row, column] > 50 else "black"
        text = f"{shares[row, column]:.0f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=6, color=color)
    return figure
