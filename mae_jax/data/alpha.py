"""Transparent images: alpha channels, transparent colors, and compositing on a background."""

import numpy as np
from PIL import Image, ImageColor

from mae_jax.types import UserError

WHITE = "white"

Color = tuple[int, int, int]
"""(red, green, blue), 0 to 255."""


def color_of(where: str, background: str | int | Color) -> Color:
    """The color that an argument specifies: a name, '#rrggbb', a gray level, or three numbers.

    Args:
        where: the argument's owner, for messages.
        background: the argument.

    Raises:
        UserError: `background` is none of these.
    """
    if isinstance(background, str):
        try:
            return ImageColor.getrgb(background)[:3]
        except ValueError:
            background = repr(background)
    else:
        color = tuple(background) if isinstance(background, (tuple, list)) else (background,) * 3
        if len(color) == 3 and all(type(v) is int and 0 <= v <= 255 for v in color):
            return color
    raise UserError(
        f"{where}: background {background} is not a color: give a name such as white, '#rrggbb', a "
        "gray level from 0 to 255, or (red, green, blue)"
    )


def has_alpha(image: Image.Image, data: bytes) -> bool:
    """Whether pixels of an opened image may be transparent, according to its header.

    Args:
        image: the opened image. A TGA that declares no alpha bits has no alpha, whatever its fourth
            channel holds.
        data: bytes of the file.
    """
    if image.format == "TGA" and image.mode == "RGBA" and not data[17] & 0x0F:
        return False
    key = image.info.get("transparency")
    return isinstance(key, (int, bytes, tuple)) or (
        image.has_transparency_data and "transparency" not in image.info
    )


def correct_key(image: Image.Image, data: bytes) -> None:
    """Scales the transparent color of a PNG to the 8 bits that Pillow decodes to."""
    key = image.info.get("transparency")
    if image.format != "PNG":
        return
    bits = data[24]
    if isinstance(key, int) and image.mode == "L" and bits < 8:
        image.info["transparency"] = key * 255 // (2**bits - 1)
    if isinstance(key, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)


def with_alpha(image: Image.Image) -> Image.Image:
    """Converts an image to RGBA."""
    image = image.convert("LA") if image.mode == "La" else image  # premultiplied gray
    return image.convert("RGBA")


def without(image: Image.Image) -> Image.Image:
    """Drops a fourth channel or a transparent color that is not alpha by `has_alpha`."""
    image.info.pop("transparency", None)
    return image.convert("RGB") if image.mode == "RGBA" else image


def composited(pixels: np.ndarray, background: Color) -> np.ndarray:
    """Composites an image on a background.

    Args:
        pixels: [H, W, 4] uint8: red, green, blue, alpha, not premultiplied.
        background: color that shows through.

    Returns:
        [H, W, 3] uint8, rounded.
    """
    color, alpha = pixels[:, :, :3], pixels[:, :, 3:]
    if alpha.min(initial=255) == 255:
        return color
    share = alpha.astype(np.uint16)  # 255 * 255 + 127 is below 2**16
    mixed = color * share + np.array(background, np.uint16) * (255 - share) + 127
    return (mixed // 255).astype(np.uint8)
