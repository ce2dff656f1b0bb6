"""Fast decoding, cropping and resizing of single images on the CPU.

Pillow reads all formats and is the reference. JPEGs are decoded by libjpeg-turbo directly, to the
same pixels. They are decoded at 1/2, 1/4 or 1/8 of their size if that is still at least twice the
size of the result: leaving out high frequencies is a cheap and good low-pass filter. Resizing is
antialiased bicubic as in Pillow, in SIMD integer arithmetic (`fast_image_resize`): on photographs,
nearly all pixels are within one gray level of Pillow's, and the worst are 8 off.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from mae_jax.data import alpha, decoding
from mae_jax.data.decoding import MAX_PIXELS, BadImage
from mae_jax.data.deep import deep_color
from mae_jax.data.jpeg import names_orientation
from mae_jax.data.lazy import Lazy
from mae_jax.data.orientation import orientation, turned
from mae_jax.data.resizing import resize
from mae_jax.types import UserError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Number of channels -> mode of Pillow."""

Box = Sequence[float]
"""(top, left, height, width) in pixels."""


Window = tuple[float, float]
"""(low, high): the values that map linearly to 0 and 255; values outside are clipped."""


class Encoded:
    """An encoded image, decoded lazily and at the resolution that is needed.

    Args:
        data: bytes of a file in any format that Pillow reads.
        channels: channels to convert to: 1 (gray), 3 (RGB) or 4 (RGB and alpha).
        window: values that become 0 and 255, for images of more than 8 bits; None: the full range
            of their bits.
        background: color behind transparent pixels; unused with 4 channels.
        max_pixels: larger images are refused.
    """

    def __init__(
        self,
        data: bytes,
        channels: int = 3,
        window: Window | None = None,
        *,
        background: alpha.Color = (255, 255, 255),
        max_pixels: int = MAX_PIXELS,
    ):
        self.data, self.channels, self.window = data, channels, window
        self.background, self.max_pixels = background, max_pixels
        self._pixels: np.ndarray | None = None
        self._smaller: dict[int, np.ndarray | None] = {}
        self._orientation: int | None = None
        self._jpeg_shape = self._plain_jpeg()

    def fresh(self) -> "Encoded":
        """A copy that is not decoded yet."""
        options = dict(background=self.background, max_pixels=self.max_pixels)
        return Encoded(self.data, self.channels, self.window, **options)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return self._jpeg_shape or self.pixels().shape[:2]

    @property
    def orientation(self) -> int:
        """Orientation of the stored image, 1 (upright) to 8 as in Exif; 0 if it cannot be read."""
        if self._orientation is None:
            self._orientation = self._find_orientation()
        return self._orientation

    def pixels(self) -> np.ndarray:
        """The whole image, turned upright by its orientation in Exif, TIFF or XMP: [H, W, C] uint8.

        Raises:
            BadImage: the image cannot be decoded.
        """
        if self._pixels is None:
            self._pixels = self._decode_jpeg(1) if self._jpeg_shape else None
            if self._pixels is None:
                self._pixels = self._decode_any()
        return self._pixels

    def at_least(self, box: Box, size: tuple[int, int]) -> tuple[np.ndarray, Box]:
        """Pixels for cropping `box` and resizing it to `size` (height, width): the image, decoded
        at a lower resolution if that suffices, and the box at that resolution.
        """
        factor = 1
        while factor < 8 and all(b >= 4 * factor * s for b, s in zip(box[2:], size, strict=True)):
            factor *= 2
        if factor == 1 or not self._jpeg_shape or self._pixels is not None:
            return self.pixels(), box
        if factor not in self._smaller:  # several crops of an image share what is decoded
            self._smaller[factor] = self._decode_jpeg(factor)
        pixels = self._smaller[factor]
        if pixels is None:
            return self.pixels(), box
        return pixels, tuple(side / factor for side in box)

    def _find_orientation(self) -> int:
        if self._is_jpeg() and not names_orientation(self.data):
            return 1
        try:
            return decoding.decoded(self.data, self.max_pixels, lambda image, _: orientation(image))
        except Exception:  # decoding reports the error
            return 0

    def _plain_jpeg(self) -> tuple[int, int] | None:
        """(height, width) of an upright JPEG that libjpeg-turbo decodes like Pillow, else None."""
        if self.channels not in (1, 3) or not self._is_jpeg() or self.orientation != 1:
            return None
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(self.data)
        except ValueError:
            return None
        fits = height * width <= self.max_pixels
        return (height, width) if space in ("YCbCr", "Gray") and fits else None

    def _is_jpeg(self) -> bool:
        return self.data[:2] == b"\xff\xd8"

    def _decode_jpeg(self, factor: int) -> np.ndarray | None:
        """The image at 1 / factor of its size; None if damaged, for Pillow to report why."""
        height, width = (-(-side // factor) for side in self._jpeg_shape)
        try:
            return simplejpeg.decode_jpeg(
                self.data,
                colorspace="GRAY" if self.channels == 1 else "RGB",
                min_height=height if factor > 1 else 0,
                min_width=width if factor > 1 else 0,
            )
        except ValueError:
            return None

    def _decode_any(self) -> np.ndarray:
        try:
            pixels = decoding.decoded(self.data, self.max_pixels, self._pixels_of)
        except UnidentifiedImageError:
            raise BadImage(decoding.why_unidentified(self.data)) from None
        except BadImage:
            raise
        except Exception as error:  # on damaged files, Pillow raises errors of a dozen kinds
            raise BadImage(str(error) or type(error).__name__) from error
        return pixels

    def _pixels_of(self, image: Image.Image, data: bytes) -> np.ndarray:
        """[H, W, C] uint8 of an opened image."""
        bits = decoding.bits_of_color(image, data)
        transparent = alpha.has_alpha(image, data)
        if bits > 8 and self.window is not None:
            turn = orientation(image)  # Pillow turns an image only on loading
            image, transparent = self._windowed_color(deep_color(image, data), bits)
        else:
            decoding.load(image)
            turn = orientation(image)  # 1 if Pillow has turned it on loading
            if image.mode[0] in "IF":
                image, transparent = self._windowed_gray(image, data)
            else:
                alpha.correct_key(image, data)
        if not transparent:
            pixels = np.asarray(alpha.without(image).convert(MODES[self.channels]))
        elif self.channels == 4:
            pixels = np.asarray(alpha.with_alpha(image))
        else:
            shown = alpha.composited(np.asarray(alpha.with_alpha(image)), self.background)
            pixels = np.asarray(Image.fromarray(shown).convert(MODES[self.channels]))
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        return np.ascontiguousarray(turned(pixels, turn))

    def _windowed_gray(self, image: Image.Image, data: bytes) -> tuple[Image.Image, bool]:
        """Gray pixels of more than 8 bits mapped to 8, and whether the result has alpha."""
        values, highest = decoding.deep_gray(image, data)
        if self.window is None and not highest:
            raise BadImage(
                f"pixels of 32 bits, or signed ({image.mode}): give the source a window=(low, high)"
            )
        gray = window_to_bytes(values, self.window or (0, highest))
        gray = 255 - gray if decoding.white_is_zero(image) else gray
        key = image.info.get("transparency")
        if not isinstance(key, int):
            return Image.fromarray(gray), False
        opaque = np.where(values == key, 0, 255).astype(np.uint8)
        return Image.fromarray(np.stack([gray, opaque], axis=2)), True

    def _windowed_color(self, values: np.ndarray, bits: int) -> tuple[Image.Image, bool]:
        """Color of more than 8 bits mapped by the window, and whether it has alpha. Alpha is mapped
        from its full range.
        """
        colors = 1 if values.shape[2] < 3 else 3
        pixels = window_to_bytes(values, self.window)
        pixels[:, :, colors:] = window_to_bytes(values[:, :, colors:], (0, 2**bits - 1))
        return Image.fromarray(pixels), values.shape[2] > colors


def decode_mask(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a segmentation [H, W] from an image file of one channel or with a palette (of which
    it returns the indices), turned upright by its own orientation.

    Raises:
        BadImage: the file cannot be decoded, or has several channels.
    """
    try:
        mask = decoding.decoded(data, max_pixels, _numbers)
    except UnidentifiedImageError:
        raise BadImage(f"its mask: {decoding.why_unidentified(data)}") from None
    except Exception as error:  # on damaged files, Pillow raises errors of a dozen kinds
        raise BadImage(f"its mask: {error}") from error
    if mask.ndim != 2:
        raise BadImage(f"its mask has {mask.shape[2]} channels: one, of class numbers, is needed")
    return mask


def _numbers(image: Image.Image, data: bytes) -> np.ndarray:
    image.load()
    values = np.asarray(image)
    if image.mode == "L":  # Pillow stretches gray of 2 and 4 bits to 0 ... 255
        values = values // (255 // (2 ** decoding.bits_of_gray(image, data) - 1))
    return turned(values, orientation(image))


def window_to_bytes(values: np.ndarray, window: Window) -> np.ndarray:
    """Maps values of any shape and type to uint8 by a window; NaN becomes 0."""
    low, high = window
    # float32 would round large integers.
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0, posinf=255), 0, 255)).astype(np.uint8)


def check_window(kind: str, window: Any) -> None:
    """Raises UserError unless `window` is None or (low, high), finite and ascending."""
    if window is None:
        return
    pair = isinstance(window, Sequence) and len(window) == 2
    if not (pair and all(type(v) in (int, float) and math.isfinite(v) for v in window)):
        pair = False
    if not pair or window[0] >= window[1]:
        raise UserError(
            f"{kind}: window {window!r} should be (low, high), two numbers in ascending order: the "
            "values that become 0 and 255"
        )


def cut(
    image: np.ndarray | Encoded, box: Box, size: tuple[int, int], kernel: str = "bicubic"
) -> np.ndarray:
    """Crops a box from an image and resizes it with antialiasing.

    Args:
        image: [H, W, C] uint8, or encoded.
        box: (top, left, height, width) in pixels of the whole image.
        size: (height, width) of the result.
        kernel: a name in `resizing.KERNELS`.

    Returns:
        [*size, C] uint8.

    Raises:
        BadImage: the image cannot be decoded, or the result would have over `MAX_PIXELS`.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise BadImage(f"{size[0]} x {size[1]} pixels after resizing: over {MAX_PIXELS}")
    if isinstance(image, Encoded):
        image, box = image.at_least(box, size)
    top, left = int(box[0]), int(box[1])
    bottom, right = (int(np.ceil(box[i] + box[i + 2])) for i in (0, 1))
    image = image[top:bottom, left:right]
    inside = (box[0] - top, box[1] - left, box[2], box[3])
    if image.shape[:2] == tuple(size) and inside == (0, 0, *size):
        return image
    return resize(image, inside, size, kernel)


def mirror(image: np.ndarray) -> np.ndarray:
    """Mirrors [H, W, C] uint8 left to right, channel by channel, which is five times faster."""
    mirrored = np.empty_like(image)
    for channel in range(image.shape[2]):
        mirrored[:, :, channel] = image[:, ::-1, channel]
    return mirrored


def pixels_of(image: Any) -> Any:
    """Decodes an image that is `Encoded`, reads one that is `Lazy`; returns others unchanged."""
    return image.pixels() if isinstance(image, (Encoded, Lazy)) else image
