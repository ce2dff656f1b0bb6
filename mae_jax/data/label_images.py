"""Label images beside images: which way up they are, and that they have the size of the image."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mae_jax.data.files import read_bytes
from mae_jax.data.images import BadImage, Encoded, decode_mask
from mae_jax.data.orientation import turned

ANNOTATED = ("upright", "stored")
"""Which image a label image belongs to, where Exif or TIFF names an orientation."""


def read_label(path: Path, image: Encoded, *, annotated: str) -> np.ndarray:
    """The numbers [H, W] in a label image, of the upright image.

    Raises:
        BadImage: it cannot be read, has several channels, or another size than the image.
    """
    mask = decode_mask(read_bytes(path), image.max_pixels)
    mask = turned(mask, image.orientation) if annotated == "stored" else mask
    if mask.shape == image.shape:
        return mask
    other = "stored" if annotated == "upright" else "upright"
    hint = f": are they those of the images as {other}? Then give annotated={other}"
    raise BadImage(
        f"its mask {path} is {_size(mask.shape)}, the image {_size(image.shape)}, both upright"
        + (hint if mask.shape == image.shape[::-1] else "")
    )


def convention(annotated: str, what: str = "masks and boxes") -> Iterator[str]:
    """A line that says which images label images belong to."""
    turn = {"upright": "turned upright", "stored": "stored, and are turned with them"}
    yield f"{what} are those of the images as {turn[annotated]} (annotated={annotated})"


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"
