"""Segmentations: images, predicted classes over them, true classes beside, and a legend."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from mae_jax.figures.figure import Figure, FigureContext, save
from mae_jax.figures.planes import first_spacings
from mae_jax.ops.palette import overlay, palette
from mae_jax.ops.planes import fullest, joined, planes, same_size
from mae_jax.types import IGNORE, Method, UserError

SIDE, PLANES = 1.6, 3.6
"""Inches that an image, and the three planes of a volume, are wide."""
LEGEND = 24
"""Classes in the legend at most: those that cover most pixels."""


def make(count: int = 6) -> Figure:
    """Draws the first images of the test set, or of the training set if there is none, after the
    evaluation transforms; of volumes, the three planes with most labeled voxels.

    Args:
        count: how many images.
    """
    if count < 1:
        raise UserError(f"segmentation: count={count} must be at least 1")
    name = "segmentation.png"
    return Figure(
        name="segmentation",
        files=(name,),
        draw=lambda context: [save(drawn(context, count), context.folder / name)],
        check=nothing_to_draw,
    )


def nothing_to_draw(method: Method) -> str | None:
    """Why a method has no segmentations; None: it has some."""
    return None if "segmentation" in method.offers() else "the method does not segment"


def drawn(context: FigureContext, count: int) -> Canvas:
    """The figure."""
    predict = context.predict(("segmentation",), label_map)
    names = context.data.source(context.split).names.get("segmentation", ())
    images, predicted, true = [], [], []
    for batch in context.data.eval(context.split, limit=count):
        found = predict(batch)
        valid = np.asarray(found["valid"])
        images += list(np.asarray(found["image"])[valid])
        predicted += list(np.asarray(found["map"])[valid])
        true += list(np.asarray(found["segmentation"])[valid])
    colors = palette(max(len(names), int(np.max(predicted)) + 1))
    rows = {
        "image": images,
        "predicted": [overlay(x, y, colors) for x, y in zip(images, predicted, strict=True)],
        "true": [overlay(x, y, colors) for x, y in zip(images, true, strict=True)],
    }
    volumes = images[0].ndim == 4
    rows, side = (in_planes(context, rows, true), PLANES) if volumes else (rows, SIDE)
    ratio = rows["image"][0].shape[0] / rows["image"][0].shape[1]
    width, height = side * len(images) + 2.4, side * ratio * 3
    figure = Canvas((width, height), dpi=150)
    axes = figure.subplots(3, len(images), squeeze=False)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            picture = picture if picture.shape[-1] == 3 else picture[..., 0]
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([]), axis.set_yticks([])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(label, fontsize=9)
    figure.legend(handles=_legend(predicted, true, names, colors), loc="center right", fontsize=7)
    left, right = 0.35 / width, 1 - 1.8 / width
    figure.subplots_adjust(left=left, right=right, top=0.99, bottom=0.01, wspace=0.03, hspace=0.03)
    return figure


def in_planes(context: FigureContext, rows: Mapping, true: Sequence[np.ndarray]) -> dict:
    """Rows of volumes [D, H, W, C] as rows of pictures of three planes, side by side."""
    places = [fullest((labels > 0) & (labels != IGNORE)) for labels in true]
    spacings = first_spacings(context.data, context.split, len(true))
    draw = lambda volume, at, spacing: joined(planes(volume, at, spacing))
    return {
        name: same_size(list(map(draw, volumes, places, spacings)))
        for name, volumes in rows.items()
    }


def label_map(outputs, batch):
    """The class of each pixel, and what is drawn beside it."""
    kept = {name: batch[name] for name in ("image", "segmentation", "valid")}
    return {"map": outputs["segmentation"].argmax(-1), **kept}


def _legend(predicted, true, names, colors) -> list[Patch]:
    """A patch for each class in the pictures, the most frequent first."""
    pixels = np.concatenate([np.ravel(x) for x in (*predicted, *true)]).astype(int)
    counts = np.bincount(pixels[pixels != IGNORE], minlength=len(colors))
    classes = [c for c in np.argsort(-counts) if counts[c]][:LEGEND]
    label = lambda c: names[c] if c < len(names) else f"class {c}"
    return [Patch(facecolor=colors[c] / 255, edgecolor="0.5", label=label(c)) for c in classes]
