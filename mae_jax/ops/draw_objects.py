"""Pictures of images with objects: masks in color, boxes, names and scores."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mae_jax.ops.palette import overlay


def draw_objects(
    image: np.ndarray,
    boxes: np.ndarray,
    titles: Sequence[str],
    colors: np.ndarray,
    masks: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """An image with objects, the first in front of the others.

    Args:
        image: [H, W, C] uint8; of other than three channels the first is shown.
        boxes: [k, 4] (ymin, xmin, ymax, xmax) in pixels.
        titles: k texts, e.g. 'cat 0.93'.
        colors: [k, 3] uint8.
        masks: k bitmaps [H, W] bool; empty: boxes only.

    Returns:
        [H, W, 3] uint8.
    """
    front = np.zeros(image.shape[:2], int)  # the number of the object in front, or 0
    for number in range(len(masks), 0, -1):
        front[masks[number - 1]] = number
    table = np.concatenate([np.zeros((1, 3), np.uint8), np.asarray(colors).reshape(-1, 3)])
    picture = Image.fromarray(overlay(image, front, table))
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(image.shape[:2]) / 400))
    for box, title, color in reversed(list(zip(boxes, titles, colors, strict=True))):
        ymin, xmin, ymax, xmax = np.rint(box).astype(int).tolist()
        color = tuple(np.asarray(color).tolist())
        # The last row and column of the box are part of it.
        pen.rectangle((xmin, ymin, max(xmin, xmax - 1), max(ymin, ymax - 1)), None, color, width)
        text = pen.textbbox((xmin, ymin), title)
        pen.rectangle(text, fill=color)
        bright = np.dot(color, (0.299, 0.587, 0.114)) > 140
        pen.text((xmin, ymin), title, fill=(0, 0, 0) if bright else (255, 255, 255))
    return np.asarray(picture)
