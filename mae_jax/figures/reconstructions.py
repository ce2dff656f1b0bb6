"""Inputs and predictions of a method: one labeled row per kind of picture (image, masked image,
prediction, ...), one column per image.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from mae_jax.figures.figure import Figure, FigureContext, save
from mae_jax.types import Method, UserError

SIDE = 1.1
"""Width of an image in inches."""


def make(count: int = 8) -> Figure:
    """Draws the pictures of the method (`Method.pictures`): images, the middle slice of volumes and
    videos, and signals as lines.

    Args:
        count: number of images.
    """
    if count < 1:
        raise UserError(f"reconstructions: count={count} must be at least 1")
    name = "reconstructions.png"
    return Figure(
        name="reconstructions",
        files=(name,),
        draw=lambda context: [draw_pictures(context.pictures(count, 0), context.folder / name)],
        check=nothing_to_draw,
        sheet=lambda context, number, seed: drawn(labeled(context.pictures(number or count, seed))),
        log=lambda context: logged(context, count),
    )


def nothing_to_draw(method: Method) -> str | None:
    """Why a method has no pictures, or None if it has."""
    return (
        None if method.pictures() else "the method or its target predicts nothing that can be drawn"
    )


def draw_pictures(pictures: Mapping[str, np.ndarray], path: Path) -> Path:
    """Draws a row for each kind of picture, in their order.

    Args:
        pictures: label -> [B, *space, C] uint8. If C is not 3, the first channel of images is
            drawn, and all channels of signals.
        path: of the PNG.

    Returns:
        `path`.
    """
    return save(drawn(labeled(pictures)), path)


def logged(context: FigureContext, count: int) -> tuple[np.ndarray, str]:
    """The picture for the writers, [H, W, 3] uint8, and its labels. Images of one size are tiled
    pixel by pixel.
    """
    rows = labeled(context.pictures(count, 0))
    text = "Rows, from the top: " + "; ".join(" ".join(label.split()) for label in rows)
    sizes = {images.shape[1:-1] for images in rows.values()}
    one_size = len(sizes) == 1 and len(*sizes) == 2
    return (tiled(rows) if one_size else raster(drawn(rows))), text


def labeled(pictures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Label of each row, from the top -> images [B, H, W, C] or signals [B, L, C]."""
    rows = {}
    for name, images in pictures.items():
        label = textwrap.fill(name, 24)
        if images.ndim > 4:
            label += "\n(middle slice)"
        rows[label] = flat(images)
    return rows


def flat(images: np.ndarray) -> np.ndarray:
    """Middle slices [B, H, W, C] of volumes [B, D, ..., H, W, C]; other images are unchanged."""
    while images.ndim > 4:
        images = images[:, images.shape[1] // 2]  # [B, D, ..., H, W, C] -> [B, ..., H, W, C]
    return images


def tiled(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """Tiles rows of images [B, H, W, C] of one size into one picture [rows * H, B * W, 3] uint8."""
    shown = [images if images.shape[3] == 3 else images[..., :1] for images in rows.values()]
    # [rows, B, H, W, 3]
    images = np.stack([np.broadcast_to(image, (*image.shape[:3], 3)) for image in shown])
    count, number, height, width, _ = images.shape
    return images.transpose(0, 2, 1, 3, 4).reshape(count * height, number * width, 3)


def raster(figure: Canvas) -> np.ndarray:
    """A figure as pixels, [H, W, 3] uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]


def drawn(rows: Mapping[str, np.ndarray], side: float = SIDE) -> Canvas:
    """The figure of `labeled` rows.

    Args:
        side: width of an image in inches.
    """
    first = next(iter(rows.values()))
    count, ratio = len(first), first.shape[1] / first.shape[2] if first.ndim == 4 else 0.6
    figure = Canvas((2.0 + side * count, side * ratio * len(rows) + 0.1), dpi=150)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for row, (label, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            show(axis, image)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, labelpad=6)
    left = 1.95 / figure.get_figwidth()
    figure.subplots_adjust(left=left, right=0.995, top=0.99, bottom=0.01, wspace=0.04, hspace=0.04)
    return figure


def show(axis: Axes, image: np.ndarray) -> None:
    """Draws an image [H, W, C], or a line for each channel of a signal [L, C]."""
    axis.set_xticks([]), axis.set_yticks([])
    axis.spines[:].set_visible(False)
    if image.ndim == 2:
        axis.plot(image, linewidth=0.6)
        axis.set(xlim=(0, len(image) - 1), ylim=(-5, 260))
        axis.patch.set_facecolor("0.96")
        return
    shown = image if image.shape[2] == 3 else image[:, :, 0]
    axis.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
