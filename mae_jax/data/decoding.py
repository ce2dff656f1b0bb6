"""Opens image files with Pillow, and reads their depth where Pillow hides it.

Four differences from `Image.open`. Formats that run a program, hold documents or videos, or that
Pillow lists but cannot read, are never tried, whatever the file name. The limit on pixels is an
argument instead of a global. PNG files may hold profiles and texts of any size. For a TIFF file,
overviews and masks before the first full page are skipped.
"""

import contextlib
import functools
import io
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

T = TypeVar("T")

MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS
"""Larger images are refused, as in Pillow, since a small file may unpack to fill the memory."""

_NO_IMAGES = frozenset(("EPS", "WMF", "PDF", "MPEG", "FLI", "BUFR", "GRIB", "HDF5", "IPTC"))
"""Pillow's formats that are not tried: those that run programs, documents, videos, stubs."""
_SUBFILE, _OLD_SUBFILE, _BITS, _PHOTOMETRIC = 254, 255, 258, 262  # tags of TIFF
_SAMPLE_FORMAT = 339  # 1: unsigned, 2: signed integers, 3: floats
_REDUCED, _MASK = 1, 4  # bits of _SUBFILE; 2 is a page of several
_TEXTS = (b"iCCP", b"zTXt", b"tEXt", b"iTXt")
_NEEDED = (b"XML:com.adobe.xmp\0\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class BadImage(Exception):
    """An example that cannot be read; the message says why."""


@functools.cache
def formats() -> tuple[str, ...]:
    """Supported formats: those of the installed Pillow except `_NO_IMAGES`."""
    Image.preinit()  # the most common ones first
    Image.init()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in _NO_IMAGES)


@functools.cache
def extensions() -> tuple[str, ...]:
    """File extensions of the supported formats, in lower case, the most common ones first."""
    readable = (*formats(), "MPO")  # opened as a JPEG
    known = Image.registered_extensions()
    supported = sorted(end for end, name in known.items() if name in readable)
    common = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
    return (*common, *(end for end in supported if end not in common))


def allow(max_pixels: int) -> None:
    """Raises Pillow's process-wide limit on pixels, which some of its readers check."""
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)


@contextlib.contextmanager
def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Opens an image file at its first full page, without decoding the pixels.

    Args:
        data: bytes of the file.
        max_pixels: larger images are refused.

    Raises:
        BadImage: the image is too large.
        UnidentifiedImageError: the format is unknown.
    """
    try:
        image = _open(data)
    except Image.DecompressionBombError:
        raise BadImage(f"it is over {_limit(max_pixels)}") from None
    with image:
        if image.format == "TIFF":
            _to_full_page(image)
        width, height = image.size
        if width * height > max_pixels:
            raise BadImage(f"{width} x {height} pixels are over {_limit(max_pixels)}")
        try:
            yield image
        except Image.DecompressionBombError:
            raise BadImage(f"a part of it is over {_limit(max_pixels)}") from None


def decoded(data: bytes, max_pixels: int, decode: Callable[[Image.Image, bytes], T]) -> T:
    """Applies a function to an opened image and the bytes of its file. If the profiles or texts of
    a PNG are larger than Pillow accepts, it is opened again without them.

    Raises:
        BadImage, UnidentifiedImageError: see `opened`; and what `decode` raises.
    """
    try:
        with opened(data, max_pixels) as image:
            return decode(image, data)
    except ValueError as error:
        if "MAX_TEXT" not in str(error):
            raise
    smaller = _without_texts(data)
    with opened(smaller, max_pixels) as image:
        return decode(image, smaller)


def bits_of_color(image: Image.Image, data: bytes) -> int:
    """Bits per channel of a color image that Pillow reduces to 8 bits; 8 for all others."""
    if image.format == "PNG":
        return 16 if data[24] == 16 and data[25] in (2, 4, 6) else 8
    if image.format == "TIFF":
        return 8 if image.mode[0] in "IF" else max(8, *_tag(image, _BITS, (8,)))
    if image.mode == "RGB" and image.format == "PPM":
        return max(8, _maximum(image).bit_length())
    if image.mode[0] not in "IF" and image.format == "JPEG2000":
        return max(8, _bits_of_jpeg2000(data))
    if image.format == "AVIF":  # ISO/IEC 14496-15: av1C; AV1-ISOBMFF 2.3.3
        start = data.find(b"av1C")
        flags = data[start + 6] if 0 <= start < len(data) - 6 else 0
        return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    return 8


def bits_of_gray(image: Image.Image, data: bytes) -> int:
    """Bits of a gray image of at most 8 bits, mode L: 2 or 4 in some PNG and TIFF files, or 8."""
    if image.format == "PNG":
        bits = data[24]
    else:
        bits = _tag(image, _BITS, (8,))[0] if image.format == "TIFF" else 8
    return bits if bits in (2, 4) else 8


def deep_gray(image: Image.Image, data: bytes) -> tuple[np.ndarray, int]:
    """Values of a gray image of more than 8 bits, as stored, and the highest possible value.

    Args:
        image: loaded image of a mode that starts with I or F.
        data: bytes of the file.

    Returns:
        [H, W] and the highest value, e.g. 65535; 0 for 32 bits and for signed values. Values of a
        file where white is the lowest value are not inverted, see `white_is_zero`.
    """
    values = np.asarray(image)
    if image.format == "PPM" and image.mode == "I":  # Pillow scales the values to 16 bits
        highest = int(image.info["maximum"])
        return np.rint(values * (highest / 65535)).astype(np.uint16), highest
    if image.mode == "I" and image.format == "TIFF" and _is_uint32(image):
        values = values.view(np.uint32)  # Pillow has signed integers only
    if not image.mode.startswith("I;16"):
        return values, 0
    bits = 16
    if image.format == "JPEG2000":  # scaled to 16 bits, too
        bits = _bits_of_jpeg2000(data)
        values = values >> (16 - bits)
        if _is_signed_jpeg2000(data):  # Pillow has shifted them to be positive
            return values.astype(np.int32) - 2 ** (bits - 1), 0
    elif image.format == "TIFF":
        bits = max(_tag(image, _BITS, (16,)))
    return values, 2**bits - 1


def white_is_zero(image: Image.Image) -> bool:
    """Whether a gray TIFF of more than 8 bits must be inverted. Pillow itself inverts 8 bits."""
    return image.format == "TIFF" and image.mode[0] in "IF" and _tag(image, _PHOTOMETRIC, 1) == 0


def load(image: Image.Image) -> None:
    """Decodes the pixels in place, and stores the maximum of a PPM, which Pillow discards.

    Raises:
        BadImage: a TIFF of signed 8-bit values.
    """
    if image.format == "PPM" and image.mode == "I":
        image.info["maximum"] = _maximum(image)
    if image.format == "TIFF" and image.mode == "L" and 2 in _tag(image, _SAMPLE_FORMAT, (1,)):
        raise BadImage("signed values of 8 bits, which the source tiff(...) reads")
    image.load()


def why_unidentified(data: bytes) -> str:
    """The reason why a file could not be identified, for a message."""
    if data.startswith(_TIFF):
        return (
            "a TIFF that Pillow does not read: damaged, or of values (64 bits, half floats, "
            "gray and alpha of 16 bits ...) or channels that only the source tiff(...) reads"
        )
    if data.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the image: git lfs pull"
    start = f"it starts with {data[:16]!r}" if data else "it is empty"
    return f"no image format that is known: {start}"


def _limit(max_pixels: int) -> str:
    return (
        f"the limit of {max_pixels} pixels, which keeps small files from filling the memory: raise "
        "max_pixels of the source"
    )


def _open(data: bytes) -> Image.Image:
    """`Image.open` without its limit on the number of pixels."""
    file, start = io.BytesIO(data), data[:16]
    for name in formats():
        factory, accept = Image.OPEN[name]
        try:
            accepted = accept is None or accept(start)
            if accepted and not isinstance(accepted, str):
                file.seek(0)
                return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # not this format after all
    raise UnidentifiedImageError


def _without_texts(data: bytes) -> bytes:
    """A PNG without its profile and texts, except those that may hold an orientation."""
    chunks, start = [data[:8]], 8
    while start + 8 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] not in _TEXTS or data.startswith(_NEEDED, start + 8):
            chunks.append(data[start:end])
        start = end
    return b"".join(chunks)


def _to_full_page(image: Image.Image) -> None:
    """Seeks the first page that is neither an overview nor a mask; page 0 if there is none."""
    page = 0
    try:
        while _is_reduced(image):
            page += 1
            try:
                image.seek(page)
            except SyntaxError:  # Pillow does not read masks
                if not _is_reduced(image):
                    raise
    except EOFError:
        image.seek(0)


def _is_reduced(image: Image.Image) -> bool:
    flags = int(_tag(image, _SUBFILE, 0))
    return bool(flags & (_REDUCED | _MASK)) or _tag(image, _OLD_SUBFILE, 1) == 2


def _is_uint32(image: Image.Image) -> bool:
    return (_tag(image, _BITS, (1,))[0], _tag(image, _SAMPLE_FORMAT, (1,))[0]) == (32, 1)


def _tag(image: Image.Image, number: int, default):
    value = image.tag_v2.get(number, default)
    return (value,) if isinstance(default, tuple) and not isinstance(value, tuple) else value


def _maximum(image: Image.Image) -> int:
    """The value of white in the header of a PPM or PGM image that is not yet loaded."""
    args = image.tile[0][3]
    return int(args[1]) if isinstance(args, tuple) and args[1] else {"I;16B": 65535}.get(args, 255)


def _is_signed_jpeg2000(data: bytes) -> bool:
    start = data.find(b"\xff\x4f\xff\x51")
    return 0 <= start < len(data) - 42 and data[start + 42] & 0x80 > 0


def _bits_of_jpeg2000(data: bytes) -> int:
    """Bits of the first channel, from the marker segment SIZ (ISO/IEC 15444-1, A.5.1)."""
    start = data.find(b"\xff\x4f\xff\x51")
    return (data[start + 42] & 0x7F) + 1 if 0 <= start < len(data) - 42 else 8
