"""Pictures from numbers of patches: colors, heat maps over images, and encodings for a page."""

import base64
import io
import zlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas
from PIL import Image

SHADES = 15
"""Largest shade of a map to click on: 16 shades look continuous on patches, and compress well."""
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
"""Matplotlib's color maps for weights and errors from 0, and for similarities in [-1, 1]."""
STRENGTH = 0.7
"""Share of the color in a heat map over an image."""
LARGE = 128
"""Images with a longer side are encoded as JPEG."""


def palette(name: str, count: int) -> np.ndarray:
    """Colors [count, 3] uint8 of a color map of Matplotlib, from its lowest value up."""
    colors = matplotlib.colormaps[name](np.linspace(0, 1, count))[:, :3]
    return np.rint(255 * colors).astype(np.uint8)


def rgb(images: np.ndarray) -> np.ndarray:
    """Images [..., C] uint8 as [..., 3]; of other than three channels the first is shown."""
    if images.shape[-1] == 3:
        return images
    return np.broadcast_to(images[..., :1], (*images.shape[:-1], 3))


def spread(values: np.ndarray, grid: Sequence[int], space: Sequence[int]) -> np.ndarray:
    """Values [N, L, ...] of patches as pictures [N, H, W, ...].

    Args:
        grid: rows and columns of patches.
        space: H and W of the pictures, multiples of the grid.
    """
    cells = values.reshape(len(values), *grid, *values.shape[2:])  # [N, rows, columns, ...]
    rows, columns = (length // count for length, count in zip(space, grid, strict=True))
    return cells.repeat(rows, axis=1).repeat(columns, axis=2)


def colored(values: np.ndarray, low: float, high: float, name: str = SEQUENTIAL) -> np.ndarray:
    """Values [...] as colors [..., 3] uint8; NaN is gray.

    Args:
        low, high: values of the first and the last color of the color map.
    """
    shares = (values - low) / max(high - low, np.finfo(np.float32).tiny)
    index = np.rint(255 * np.clip(np.nan_to_num(shares), 0, 1)).astype(int)
    gray = np.full(3, 160, np.uint8)
    return np.where(np.isnan(values)[..., None], gray, palette(name, 256)[index])


def over(images: np.ndarray, colors: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Gray images under the colors of their patches, [N, H, W, 3] uint8.

    Args:
        images: [N, H, W, C] uint8.
        colors: [N, L, 3] uint8.
        grid: rows and columns of patches.
    """
    gray = rgb(images).mean(axis=-1, keepdims=True)  # [N, H, W, 1]
    tinted = (1 - STRENGTH) * gray + STRENGTH * spread(colors, grid, images.shape[1:3])
    return np.rint(tinted).astype(np.uint8)


def heat(images: np.ndarray, values: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Non-negative values [N, L] of patches over their images; each image has its own scale, from 0
    to its largest value, and the square root of the share is its color. [N, H, W, 3] uint8.
    """
    largest = values.max(axis=1, keepdims=True)
    shares = np.sqrt(values / np.maximum(largest, np.finfo(np.float32).tiny))
    return over(images, colored(shares, 0, 1), grid)


def shades(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantizes maps of non-negative weights: the square root of the share of the largest weight.

    Args:
        weights: [..., L].

    Returns:
        [..., L] uint8 in [0, `SHADES`], and the largest weights [...] float32.
    """
    peaks = weights.max(axis=-1)
    shares = weights / np.maximum(peaks, np.finfo(np.float32).tiny)[..., None]
    return np.rint(SHADES * np.sqrt(shares)).astype(np.uint8), peaks.astype(np.float32)


def packed(array: np.ndarray) -> str:
    """The bytes of an array, compressed (zlib) and as base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def picture_uri(pixels: np.ndarray, grid: Sequence[int] | None = None) -> str:
    """A picture [H, W, 3] uint8 as a data URI: a JPEG if it is large, else a PNG. A picture with
    one color for each patch of the grid is reduced to one pixel for each.
    """
    for axis, count in enumerate(grid or ()):
        side = max(1, pixels.shape[axis] // count)
        small = pixels.take(np.arange(0, pixels.shape[axis], side), axis=axis)
        if np.array_equal(small.repeat(side, axis=axis), pixels):
            pixels = small
    kind = "JPEG" if max(pixels.shape[:2]) > LARGE else "PNG"
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=88, optimize=True)
    return uri(file.getvalue(), f"image/{kind.lower()}")


def uri(content: bytes, kind: str) -> str:
    """A file as a data URI, of a media type such as 'image/png'."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def chart_png(figure: Canvas) -> bytes:
    """A chart as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def chart(xlabel: str, ylabel: str) -> tuple[Canvas, matplotlib.axes.Axes]:
    """An empty chart of the size of those on the page, which a telephone can show, and its axes."""
    figure = Canvas((4.4, 3.1), dpi=180, layout="constrained")
    axis = figure.subplots()
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis
