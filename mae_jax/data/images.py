"""Image files: decoding, cropping and resizing of one image, as fast as a CPU can.

Pillow reads every format and settles what is right. JPEGs, almost all of the data that people
train on, go through libjpeg-turbo itself, to the same pixels, and are decoded at 1/2, 1/4 or 1/8
of their size (by leaving out high frequencies, a cheap and good low-pass filter) where that is
still at least twice the size asked for. Resizing is bicubic with antialiasing as in Pillow, in
SIMD integer arithmetic (`fast_image_resize`): on photographs nearly all pixels are within a grey
level of Pillow's, and the worst are 8 off.
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
from mae_jax.data.orientation import orientation, turned
from mae_jax.data.resizing import resize
from mae_jax.types import UserError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Number of channels -> what Pillow calls it."""

Box = Sequence[float]
"""(top, left, height, width) in pixels."""


Window = tuple[float, float]
"""(low, high): the values that become 0 and 255, linearly; those outside are clipped."""


class Encoded:
    """The bytes of an image file, decoded when and as far as they are needed.

    Args:
        data: a JPEG, PNG or whatever else Pillow reads.
        channels: 1 (grey), 3 (RGB) or 4 (RGB and alpha) to convert to.
        window: values that become 0 and 255, for images of more than 8 bits; None: all that their
            bits can hold.
        background: what shows through transparent pixels, unless 4 channels keep the alpha.
        max_pixels: larger images cannot be read.
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
        self._orientation: int | None = None
        self._jpeg_shape = self._plain_jpeg()

    def fresh(self) -> "Encoded":
        """The same, not decoded yet."""
        options = dict(background=self.background, max_pixels=self.max_pixels)
        return Encoded(self.data, self.channels, self.window, **options)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return self._jpeg_shape or self.pixels().shape[:2]

    @property
    def orientation(self) -> int:
        """How the image is stored, 1 to 8 as in Exif; 1 is upright. 0 if the file has no header."""
        if self._orientation is None:
            self._orientation = self._find_orientation()
        return self._orientation

    def pixels(self) -> np.ndarray:
        """The whole image, upright by its orientation in Exif, TIFF or XMP: [H, W, C] uint8.

        Raises:
            BadImage: it cannot be decoded.
        """
        if self._pixels is None:
            self._pixels = self._decode_jpeg(1) if self._jpeg_shape else None
            if self._pixels is None:
                self._pixels = self._decode_any()
        return self._pixels

    def at_least(self, box: Box, size: tuple[int, int]) -> tuple[np.ndarray, Box]:
        """Pixels from which to cut a box that is then resized to `size` (height, width): the whole
        image, at a lower resolution if that is enough; and where the box is in them.
        """
        factor = 1
        while factor < 8 and all(b >= 4 * factor * s for b, s in zip(box[2:], size, strict=True)):
            factor *= 2
        if factor == 1 or not self._jpeg_shape or self._pixels is not None:
            return self.pixels(), box
        pixels = self._decode_jpeg(factor)
        if pixels is None:
            return self.pixels(), box
        return pixels, tuple(side / factor for side in box)

    def _find_orientation(self) -> int:
        if self._is_jpeg() and not names_orientation(self.data):
            return 1
        try:
            return decoding.decoded(self.data, self.max_pixels, lambda image, _: orientation(image))
        except Exception:  # decoding will report what is wrong
            return 0

    def _plain_jpeg(self) -> tuple[int, int] | None:
        """(height, width) if libjpeg-turbo alone can decode this to the right pixels."""
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
        """The image at 1 / factor of its size, or None if Pillow should say what is wrong."""
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
            turn = orientation(image)  # as stored, Pillow has turned nothing yet
            image, transparent = self._windowed_color(deep_color(image, data), bits)
        else:
            decoding.load(image)
            turn = orientation(image)  # 1 where Pillow has turned it by now
            if image.mode[0] in "IF":
                image, transparent = self._windowed_grey(image, data)
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

    def _windowed_grey(self, image: Image.Image, data: bytes) -> tuple[Image.Image, bool]:
        """Grey pixels of more than 8 bits as 8 bits, and whether there is alpha beside them."""
        values, highest = decoding.deep_grey(image, data)
        if self.window is None and not highest:
            raise BadImage(
                f"pixels of 32 bits, or signed ({image.mode}): give the source a window=(low, high)"
            )
        grey = window_to_bytes(values, self.window or (0, highest))
        grey = 255 - grey if decoding.white_is_zero(image) else grey
        key = image.info.get("transparency")
        if not isinstance(key, int):
            return Image.fromarray(grey), False
        opaque = np.where(values == key, 0, 255).astype(np.uint8)
        return Image.fromarray(np.stack([grey, opaque], axis=2)), True

    def _windowed_color(self, values: np.ndarray, bits: int) -> tuple[Image.Image, bool]:
        """Color of more than 8 bits through the window, its alpha by all of its bits."""
        colors = 1 if values.shape[2] < 3 else 3
        pixels = window_to_bytes(values, self.window)
        pixels[:, :, colors:] = window_to_bytes(values[:, :, colors:], (0, 2**bits - 1))
        return Image.fromarray(pixels), values.shape[2] > colors


def decode_mask(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A segmentation: the numbers [H, W] in an image file of one channel, a palette's included,
    upright by its own orientation.

    Raises:
        BadImage: it cannot be decoded, or has several channels.
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
    if image.mode == "L":  # Pillow stretches grey of 2 and 4 bits to 0 ... 255
        values = values // (255 // (2 ** decoding.bits_of_grey(image, data) - 1))
    return turned(values, orientation(image))


def window_to_bytes(values: np.ndarray, window: Window) -> np.ndarray:
    """Numbers of any shape and depth to uint8 through a window; NaN becomes 0."""
    low, high = window
    # in single precision, large integers would be rounded
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0, posinf=255), 0, 255)).astype(np.uint8)


def check_window(kind: str, window: Any) -> None:
    """Raises UserError unless this is None or (low, high), finite and ascending."""
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
    """Cuts a box out of an image and resizes it, antialiased.

    Args:
        image: [H, W, C] uint8, or encoded.
        box: (top, left, height, width) in pixels of the whole image.
        size: (height, width) of the result.
        kernel: a name of `resizing.KERNELS`.

    Returns:
        [*size, C] uint8.

    Raises:
        BadImage: it cannot be decoded, or the result would fill the memory.
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
    """Left and right change places: [H, W, C] uint8. By channels, which is five times faster."""
    mirrored = np.empty_like(image)
    for channel in range(image.shape[2]):
        mirrored[:, :, channel] = image[:, ::-1, channel]
    return mirrored


def pixels_of(image: Any) -> Any:
    """[H, W, C] uint8 of an image if it is encoded; whatever else it is, as it is."""
    return image.pixels() if isinstance(image, Encoded) else image
