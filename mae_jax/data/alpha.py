"""Transparent images: their alpha channel, and what shows through."""

import numpy as np
from PIL import Image, ImageColor

from mae_jax.types import UserError

WHITE = "white"

Color = tuple[int, int, int]
"""(red, green, blue), 0 to 255."""


def color_of(where: str, background: str | int | Color) -> Color:
    """The color that an argument names: a name or '#rrggbb', a grey level, or three numbers.

    Raises:
        UserError: it is none of these.
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
        f"{where}: background {background} is no color: give a name such as white, '#rrggbb', a "
        "grey level from 0 to 255, or (red, green, blue)"
    )


def has_alpha(image: Image.Image, data: bytes) -> bool:
    """Whether pixels of an opened image may be transparent, by its header.

    Args:
        image: a TGA that declares no bits of alpha has none, whatever its fourth channel holds.
        data: of the file.
    """
    if image.format == "TGA" and image.mode == "RGBA" and not data[17] & 0x0F:
        return False
    key = image.info.get("transparency")
    return isinstance(key, (int, bytes, tuple)) or (
        image.has_transparency_data and "transparency" not in image.info
    )


def correct_key(image: Image.Image, data: bytes) -> None:
    """Brings the color that a PNG declares transparent to the 8 bits that Pillow decodes to."""
    key = image.info.get("transparency")
    if image.format != "PNG":
        return
    bits = data[24]
    if isinstance(key, int) and image.mode == "L" and bits < 8:
        image.info["transparency"] = key * 255 // (2**bits - 1)
    if isinstance(key, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)


def with_alpha(image: Image.Image) -> Image.Image:
    """The same in RGBA."""
    image = image.convert("LA") if image.mode == "La" else image  # premultiplied grey
    return image.convert("RGBA")


def without(image: Image.Image) -> Image.Image:
    """The same without what only looks like alpha, see `has_alpha`."""
    image.info.pop("transparency", None)
    return image.convert("RGB") if image.mode == "RGBA" else image


def composited(pixels: np.ndarray, background: Color) -> np.ndarray:
    """Color and alpha in front of a background.

    Args:
        pixels: [H, W, 4] uint8: red, green, blue, alpha, not premultiplied.
        background: of the result.

    Returns:
        [H, W, 3] uint8, rounded.
    """
    color, alpha = pixels[:, :, :3], pixels[:, :, 3:]
    if alpha.min(initial=255) == 255:
        return color
    share = alpha.astype(np.uint16)  # 255 * 255 + 127 is below 2**16
    mixed = color * share + np.array(background, np.uint16) * (255 - share) + 127
    return (mixed // 255).astype(np.uint8)
