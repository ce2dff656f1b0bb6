"""Image files: decoding, cropping and resizing of one image, as fast as a CPU can.

Pillow reads every format and settles what is right. JPEGs, almost all of the data that people
train on, go through libjpeg-turbo itself, to the same pixels, and are decoded at 1/2, 1/4 or 1/8
of their size (by leaving out high frequencies, a cheap and good low-pass filter) where that is
still at least twice the size asked for. Resizing is bicubic with antialiasing as in Pillow, in
SIMD integer arithmetic (`fast_image_resize`): on photographs nearly all pixels are within a grey
level of Pillow's, and the worst are 8 off.
"""

import io
import math
import threading
from collections.abc import Sequence
from typing import Any

import cykooz_resizer as resizer
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from mae_jax.types import UserError

MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS
"""Larger images are refused, like Pillow does: a small file may unpack to fill the memory."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation in EXIF -> what makes the image upright."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Number of channels -> what Pillow calls it."""

Box = Sequence[float]
"""(top, left, height, width) in pixels."""


Window = tuple[float, float]
"""(low, high): the values that become 0 and 255, linearly; those outside are clipped."""


class BadImage(Exception):
    """An example that cannot be read; the message says why."""


class Encoded:
    """The bytes of an image file, decoded when and as far as they are needed.

    Args:
        data: a JPEG, PNG or whatever else Pillow reads.
        channels: 1 (grey), 3 (RGB) or 4 (RGB and alpha) to convert to.
        window: grey levels that become 0 and 255, for images of more than 8 bits; None: all of 16.
    """

    def __init__(self, data: bytes, channels: int = 3, window: Window | None = None):
        self.data, self.channels, self.window = data, channels, window
        self._pixels: np.ndarray | None = None
        self._jpeg_shape = self._plain_jpeg()

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return self._jpeg_shape or self.pixels().shape[:2]

    def pixels(self) -> np.ndarray:
        """The whole image, upright by its EXIF orientation: [H, W, C] uint8.

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

    def _plain_jpeg(self) -> tuple[int, int] | None:
        """(height, width) if libjpeg-turbo alone can decode this to the right pixels."""
        if self.channels not in (1, 3) or self.data[:2] != b"\xff\xd8" or self._turned():
            return None
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(self.data)
        except ValueError:
            return None
        return (height, width) if space in ("YCbCr", "Gray") and _fits(height, width) else None

    def _turned(self) -> bool:
        """Whether the header of this JPEG asks for another orientation."""
        header = self.data[: self.data.find(b"\xff\xda")]
        if b"Exif\0\0" not in header and b"tiff:Orientation" not in header:
            return False
        try:
            with Image.open(io.BytesIO(self.data)) as image:
                return orientation(image) != 1
        except Exception:  # then Pillow says what is wrong when it decodes
            return True

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
            with Image.open(io.BytesIO(self.data)) as image:
                turn = UPRIGHT.get(orientation(image))
                upright = image if turn is None else image.transpose(turn)
                if upright.mode[0] in "IF":
                    return self._windowed(upright)
                pixels = np.asarray(upright.convert(MODES[self.channels]))
        except UnidentifiedImageError:
            start = f"it starts with {self.data[:16]!r}" if self.data else "it is empty"
            raise BadImage(f"no image format that is known: {start}") from None
        except BadImage:
            raise
        except Exception as error:  # on damaged files, Pillow raises errors of a dozen kinds
            raise BadImage(str(error) or type(error).__name__) from error
        return pixels.reshape(*pixels.shape[:2], self.channels)

    def _windowed(self, image: Image.Image) -> np.ndarray:
        """Grey pixels of more than 8 bits as [H, W, C] uint8."""
        if self.window is None and not image.mode.startswith("I;16"):
            raise BadImage(
                f"pixels of 32 bits ({image.mode}): give the source a window=(low, high)"
            )
        grey = window_to_bytes(np.asarray(image), self.window or (0, 65535))[:, :, None]
        pixels = np.repeat(grey, self.channels, axis=2)
        if self.channels == 4:
            pixels[:, :, 3] = 255
        return pixels


def orientation(image: Image.Image) -> int:
    """How to turn an image upright, 1 to 8 as EXIF says; 1, not at all, if that cannot be read."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # any tag of the wrong type
        return 1


def decode_mask(data: bytes) -> np.ndarray:
    """A segmentation: the numbers [H, W] in an image file of one channel, a palette's included.

    Raises:
        BadImage: it cannot be decoded, or has several channels.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            mask = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage(f"its mask: {error}") from error
    if mask.ndim != 2:
        raise BadImage(f"its mask has {mask.shape[2]} channels: one, of class numbers, is needed")
    return mask


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
        kernel: a name of `KERNELS`.

    Returns:
        [*size, C] uint8.

    Raises:
        BadImage: it cannot be decoded, or the result would fill the memory.
    """
    if not _fits(*size):
        raise BadImage(f"{size[0]} x {size[1]} pixels after resizing: over {MAX_PIXELS}")
    if isinstance(image, Encoded):
        image, box = image.at_least(box, size)
    top, left = int(box[0]), int(box[1])
    bottom, right = (int(np.ceil(box[i] + box[i + 2])) for i in (0, 1))
    image = image[top:bottom, left:right]
    inside = (box[0] - top, box[1] - left, box[2], box[3])
    if image.shape[:2] == tuple(size) and inside == (0, 0, *size):
        return image
    groups = np.split(image, range(4, image.shape[2], 4), axis=2)
    parts = [_resize(group, inside, size, KERNELS[kernel]) for group in groups]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def mirror(image: np.ndarray) -> np.ndarray:
    """Left and right change places: [H, W, C] uint8. By channels, which is five times faster."""
    mirrored = np.empty_like(image)
    for channel in range(image.shape[2]):
        mirrored[:, :, channel] = image[:, ::-1, channel]
    return mirrored


def pixels_of(image: np.ndarray | Encoded) -> np.ndarray:
    """[H, W, C] uint8 of an image that may be encoded."""
    return image.pixels() if isinstance(image, Encoded) else image


_PIXELS = {
    1: resizer.PixelType.U8,
    2: resizer.PixelType.U8x2,
    3: resizer.PixelType.U8x3,
    4: resizer.PixelType.U8x4,
}
KERNELS = {
    "bicubic": resizer.ResizeAlg.convolution(resizer.FilterType.catmull_rom),
    "bilinear": resizer.ResizeAlg.convolution(resizer.FilterType.bilinear),
    "lanczos": resizer.ResizeAlg.convolution(resizer.FilterType.lanczos3),
    "nearest": resizer.ResizeAlg.nearest(),
}
"""How images are resized: Pillow's names. All but 'nearest' are wider where an image shrinks."""
_thread = threading.local()  # a Resizer keeps buffers, and serves one thread


def _resize(
    image: np.ndarray, box: Box, size: tuple[int, int], algorithm: resizer.ResizeAlg
) -> np.ndarray:
    """[H, W, C] uint8 to [*size, C], for up to four channels."""
    height, width, channels = image.shape
    if not hasattr(_thread, "resizer"):
        _thread.resizer = resizer.Resizer()
    kind = _PIXELS[channels]
    source = resizer.ImageData(width, height, kind, image.tobytes())
    target = resizer.ImageData(size[1], size[0], kind)
    options = resizer.ResizeOptions(
        resize_alg=algorithm,
        use_alpha=False,
        crop_box=resizer.CropBox(box[1], box[0], box[3], box[2]),
    )
    _thread.resizer.resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(*size, channels)


def _fits(height: int, width: int) -> bool:
    return height * width <= MAX_PIXELS
