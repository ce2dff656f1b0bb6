"""Reads the orientation of an image (1 to 8 in Exif, TIFF or XMP), and turns arrays and boxes."""

import numpy as np
from PIL import Image

_TAG = 0x0112
_KNOWN = range(1, 9)


def orientation(image: Image.Image) -> int:
    """Orientation of an opened image; 1 if it is missing or invalid."""
    try:
        value = int(image.getexif().get(_TAG, 1))
    except Exception:  # any tag of the wrong type
        return 1
    return value if value in _KNOWN else 1


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array upright.

    Args:
        values: [H, W, ...] as stored.
        orientation: 1 to 8; any other number changes nothing.

    Returns:
        [H, W, ...], or [W, H, ...] for 5 to 8.
    """
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def turned_boxes(boxes: np.ndarray, orientation: int) -> np.ndarray:
    """Converts boxes in a stored image to boxes in the upright one.

    Args:
        boxes: [n, 4] (ymin, xmin, ymax, xmax) as fractions of height and width. Rows of zeros,
            which are padding, stay.
        orientation: as in `turned`.
    """
    corners = boxes.reshape(-1, 2, 2)  # [n, (min, max), (y, x)]
    if orientation in (5, 6, 7, 8):
        corners = corners[:, :, ::-1]
    y, x = corners[:, :, 0], corners[:, :, 1]
    if orientation in (3, 4, 7, 8):
        y = 1 - y[:, ::-1]
    if orientation in (2, 3, 6, 7):
        x = 1 - x[:, ::-1]
    upright = np.stack([y, x], axis=2).reshape(boxes.shape).astype(boxes.dtype)
    return np.where(boxes.any(1, keepdims=True), upright, boxes)
