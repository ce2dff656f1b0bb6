"""Anchors of a region proposal network (arXiv 1506.01497), one scale for each level of a feature
pyramid (arXiv 1612.03144).
"""

from collections.abc import Sequence

import numpy as np

RATIOS = (0.5, 1.0, 2.0)
"""Heights of anchors divided by their widths."""


def level_anchors(grid: tuple[int, int], stride: float, side: float) -> np.ndarray:
    """The anchors of a level, [rows * columns * ratios, 4] float32 boxes in pixels, in the order
    row, column, ratio. They may reach beyond the image.

    Args:
        grid: rows and columns of the level's map.
        stride: pixels between its positions; the first anchor is centered at (0, 0).
        side: square root of the area of an anchor in pixels.
    """
    widths = side / np.sqrt(RATIOS)
    halves = np.stack([widths * RATIOS, widths], axis=-1) / 2  # [ratios, 2]
    centers = np.moveaxis(np.indices(grid), 0, -1).reshape(-1, 1, 2) * stride  # [L, 1, 2]
    boxes = np.concatenate([centers - halves, centers + halves], axis=-1)  # [L, ratios, 4]
    return boxes.reshape(-1, 4).astype(np.float32)


def pyramid_anchors(
    grids: Sequence[tuple[int, int]], strides: Sequence[float], scale: float
) -> list[np.ndarray]:
    """The anchors of each level, see `level_anchors`.

    Args:
        scale: sides of anchors in strides.
    """
    levels = zip(grids, strides, strict=True)
    return [level_anchors(grid, stride, scale * stride) for grid, stride in levels]
