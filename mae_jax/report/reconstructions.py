"""A picture of what a method sees and makes of images: one row for each kind of picture, one column
for each image, every row labeled with what it is.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mae_jax.types import UserError

ROWS = {
    "original": "original",
    "masked": "masked\n(what the encoder sees)",
    "grey": "grey\n(what the encoder sees)",
    "raw": "network output, raw",
    "denormalized": "network output, with the\nTRUE mean and deviation\nof each patch",
    "pasted": "the same, visible\npatches pasted in",
    "colorized": "colorized",
    "reconstruction": "reconstruction",
    "sample": "samples from the prior",
}
"""Kinds of pictures, in the order in which they are drawn, and their labels."""


def labeled(pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Label -> images of each row that is drawn, from the top; see `draw_reconstructions`.

    Raises:
        UserError: there is none of `ROWS`.
    """
    rows = {name: label for name, label in ROWS.items() if name in pictures}
    if not rows:
        raise UserError(f"no picture in {sorted(pictures)}: draw some of {', '.join(ROWS)}")
    if {"raw", "denormalized"} <= rows.keys() and np.array_equal(
        pictures["raw"], pictures["denormalized"]
    ):
        rows |= {"raw": "network output"}
        del rows["denormalized"]
    return {label: pictures[name] for name, label in rows.items()}


def tiled(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rows of `labeled`, all of one shape, as one picture without labels: [H, W, 3] uint8."""
    shown = [images if images.shape[3] == 3 else images[..., :1] for images in rows.values()]
    # [rows, B, H, W, 3]
    images = np.stack([np.broadcast_to(image, (*image.shape[:3], 3)) for image in shown])
    count, number, height, width, _ = images.shape
    return images.transpose(0, 2, 1, 3, 4).reshape(count * height, number * width, 3)


def draw_reconstructions(pictures: Mapping[str, np.ndarray], path: Path) -> Path:
    """Draws the rows that there are.

    Args:
        pictures: some of `ROWS`, each [B, H, W, C] uint8, where C is 3, 1, or any other number, of
            which the first is shown; what else there is is not drawn. If 'raw' equals
            'denormalized', the target was not normalised and the latter is left out.
        path: of the PNG.

    Returns:
        `path`.

    Raises:
        UserError: there is none of `ROWS`.
    """
    rows = labeled(pictures)
    count, height, width = next(iter(rows.values())).shape[:3]
    side = 1.1
    figure = Figure((2.0 + side * count, side * height / width * len(rows) + 0.1), dpi=150)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for row, (label, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            shown = image if image.shape[2] == 3 else image[:, :, 0]
            axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([]), axis.set_yticks([])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, labelpad=6)
    left = 1.95 / figure.get_figwidth()
    figure.subplots_adjust(left=left, right=0.995, top=0.99, bottom=0.01, wspace=0.04, hspace=0.04)
    figure.savefig(path)
    return path
