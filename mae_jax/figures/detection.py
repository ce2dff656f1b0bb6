"""Detections: images with the predicted objects, and below with the annotated ones."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas

from mae_jax.evals.detection import kept
from mae_jax.evals.full_size_objects import paste
from mae_jax.figures.figure import Figure, FigureContext, save
from mae_jax.ops.boxes import OUTPUTS
from mae_jax.ops.draw_objects import draw_objects
from mae_jax.ops.palette import palette
from mae_jax.types import Method, UserError

SIDE = 2.4
"""Inches that an image is wide."""
PIXELS = 384
"""Images are enlarged to about this side, so that titles are legible."""


def make(count: int = 6, score: float = 0.5) -> Figure:
    """Draws the first images of the test set, or of the training set if there is none, after the
    evaluation transforms.

    Args:
        count: how many images.
        score: of the predicted objects, at least.
    """
    if count < 1 or not 0 <= score <= 1:
        raise UserError(f"detection: count={count} must be at least 1, and score={score} in [0, 1]")
    name = "detection.png"
    return Figure(
        name="detection",
        files=(name,),
        draw=lambda context: [save(drawn(context, count, score), context.folder / name)],
        check=nothing_to_draw,
    )


def nothing_to_draw(method: Method) -> str | None:
    """Why a method has no detections; None: it has some."""
    return None if {*OUTPUTS} <= {*method.offers()} else "the method does not detect"


def drawn(context: FigureContext, count: int, score: float) -> Canvas:
    """The figure."""
    predict = context.predict(OUTPUTS, kept)
    names = context.data.source(context.split).names["box_label"]
    colors = palette(len(names) + 1)[1:]
    predicted, true = [], []
    for batch in context.data.eval(context.split, limit=count):
        found = {name: np.asarray(x) for name, x in predict(batch).items()}
        for place in np.flatnonzero(batch["valid"]):
            row = {name: x[place] for name, x in found.items()}
            shown = row["det_valid"] & (row["det_score"] >= score)
            boxes, labels = row["det_box"][shown], row["det_label"][shown]
            titles = [
                f"{names[label]} {value:.2f}"
                for label, value in zip(labels, row["det_score"][shown], strict=True)
            ]
            image = batch["image"][place]
            predicted.append(picture(image, boxes, titles, colors[labels], row["det_mask"][shown]))
            known = batch["box_label"][place] >= 0
            labels = batch["box_label"][place][known]
            titles = [names[label] for label in labels]
            masks = batch["box_mask"][place][known] / 255 if "box_mask" in batch else None
            true.append(picture(image, batch["box"][place][known], titles, colors[labels], masks))
    ratio = predicted[0].shape[0] / predicted[0].shape[1]
    figure = Canvas((SIDE * len(true) + 0.3, 2 * SIDE * ratio), dpi=150)
    axes = figure.subplots(2, len(true), squeeze=False)
    for line, label, pictures in zip(axes, ("predicted", "true"), (predicted, true), strict=True):
        for axis, pixels in zip(line, pictures, strict=True):
            axis.imshow(pixels)
            axis.set_xticks([]), axis.set_yticks([])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(label, fontsize=9)
    figure.subplots_adjust(left=0.3 / figure.get_figwidth(), right=0.995, top=0.99, bottom=0.01)
    figure.subplots_adjust(wspace=0.03, hspace=0.03)
    return figure


def picture(
    image: np.ndarray,
    boxes: np.ndarray,
    titles: Sequence[str],
    colors: np.ndarray,
    masks: np.ndarray | None,
) -> np.ndarray:
    """[H, W, 3] uint8: an image with objects, enlarged if it is small.

    Args:
        boxes: [k, 4] as fractions of height and width.
        masks: [k, m, m] in [0, 1] within the boxes; None: boxes only.
    """
    factor = max(1, PIXELS // max(image.shape[:2]))
    image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    boxes = boxes * np.tile(image.shape[:2], 2)
    masks = () if masks is None else masks
    bitmaps = [paste(mask, box, image.shape[:2]) for mask, box in zip(masks, boxes)]
    return draw_objects(image, boxes, titles, colors, bitmaps)
