"""Images of the page's user, decoded with limits, and pixels as JSON."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.data import decoding
from mae_jax.data.decoding import BadImage
from mae_jax.data.images import Encoded, cut
from mae_jax.data.transforms import Transform, transformed
from mae_jax.explain.heat import rgb
from mae_jax.types import UserError

MAX_BYTES = 32 * 2**20
"""Of an uploaded file, at most."""
MAX_PIXELS = 64_000_000
"""Of an uploaded image, at most: 8,000 x 8,000. They are counted before any is decoded."""


def decoded(
    data: bytes,
    shape: Sequence[int],
    transforms: Sequence[Transform],
    options: Mapping[str, Any],
) -> np.ndarray:
    """Decodes an image and transforms it as for evaluation.

    Args:
        data: bytes of a file in any format of `mae_jax.data.decoding`.
        shape: [H, W, C] of the result.
        transforms: for evaluation. An image that has another size afterwards is cropped to the
            result's aspect ratio around its center, and resized.
        options: of `Encoded`: window and background.

    Returns:
        [H, W, C] uint8.

    Raises:
        UserError: no image, a damaged one, or one with too many pixels.
    """
    if not data:
        raise UserError("the file is empty: choose an image")
    try:
        check_size(data)
        encoded = Encoded(data, shape[-1], max_pixels=MAX_PIXELS, **options)
        pixels = transformed(encoded, transforms)
        return pixels if pixels.shape == tuple(shape) else cut(pixels, *centered(pixels, shape))
    except BadImage as error:
        raise UserError(f"this image cannot be read: {error}") from error


def check_size(data: bytes) -> None:
    """Raises BadImage if the header of an image announces too many pixels."""
    try:
        with decoding.opened(data, np.iinfo(np.int64).max) as image:
            width, height = image.size
    except Exception:  # Pillow raises a dozen kinds on damaged files; decoding explains them
        return
    if width * height > MAX_PIXELS:
        raise BadImage(
            f"{width} x {height} pixels are over the limit of {MAX_PIXELS // 10**6} million: "
            "make it smaller"
        )


def centered(pixels: np.ndarray, shape: Sequence[int]):
    """The largest box (top, left, height, width) of an aspect ratio around the center of pixels
    [H, W, C], and the size (height, width) of `shape` that it becomes.
    """
    (height, width), size = pixels.shape[:2], tuple(shape[:2])
    factor = min(height / size[0], width / size[1])
    box_height, box_width = size[0] * factor, size[1] * factor
    return ((height - box_height) / 2, (width - box_width) / 2, box_height, box_width), size


def base64_of(array: np.ndarray) -> str:
    """The bytes of an array as base64."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def picture(label: str, pixels: np.ndarray) -> dict[str, Any]:
    """A picture [H, W, C] uint8 for the page; of other than three channels the first is shown."""
    height, width = pixels.shape[:2]
    return {"label": label, "width": width, "height": height, "pixels": base64_of(rgb(pixels))}
