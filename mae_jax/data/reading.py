"""Decoding options shared by the sources of image files, and warnings about options from inspecting
a few files.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from mae_jax.data import alpha, decoding
from mae_jax.data.images import MODES, Encoded, Window, check_window
from mae_jax.types import UserError

CHANGES = (
    "transparent images are composited on a background; TIFF files, and JPEGs whose Exif follows "
    "other segments, are turned by their orientation; a window applies to color of 16 bits; grey "
    "of 9 to 16 bits is scaled by the bits that its file declares, and inverted where it declares "
    "white as zero; integers of 32 bits above 2**31 - 1 in TIFF files, and signed ones in JPEG "
    "2000, keep their values; of a TIFF, overviews and masks are passed over"
)
"""How decoding differs from earlier versions of this package. A run stores this text and reports it
if it has changed, so do not reword it."""

LOOKED_AT = 32
"""Files to inspect when a source is opened, spread over all of them."""

_LARGE = 2**26  # images of more pixels are not decoded for inspection
_DARK = 16  # images that use less than 1 / 16 of their range are nearly black


def spread(count: int) -> list[int]:
    """Indices of at most `LOOKED_AT` of `count` examples, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int)).tolist()


class Reading:
    """Turns the bytes of image files into `Encoded` images, with the options of a source.

    Args:
        where: name of the source, for messages.
        channels: 3 (color), 1 (gray) or 4 (color and alpha).
        window: (low, high), the values that become 0 and 255, for images of more than 8 bits.
        background: color behind transparent pixels.
        max_pixels: larger images are refused.

    Raises:
        UserError: an option is invalid.
    """

    def __init__(
        self,
        where: str,
        *,
        channels: int,
        window: Window | None,
        background: str | int | alpha.Color,
        max_pixels: int,
    ):
        if type(channels) is not int or channels not in MODES:
            raise UserError(f"{where}: channels {channels} is not supported: choose 1, 3, 4")
        check_window(where, window)
        if type(max_pixels) is not int or max_pixels < 1:
            raise UserError(f"{where}: max_pixels {max_pixels!r} should be a positive integer")
        if channels == 4 and background != alpha.WHITE:
            raise UserError(
                f"{where}: background {background!r} has no effect, as channels=4 keeps the alpha: "
                "leave it out, or give channels=3"
            )
        self.channels, self.window, self.max_pixels = channels, window, max_pixels
        self.background = alpha.color_of(where, background)
        self._background = background
        if max_pixels > decoding.MAX_PIXELS:
            decoding.allow(max_pixels)

    def __call__(self, data: bytes) -> Encoded:
        """The encoded image of a file's bytes."""
        return Encoded(
            data,
            self.channels,
            self.window,
            background=self.background,
            max_pixels=self.max_pixels,
        )

    def look(self, files: Iterable[bytes]) -> tuple[str, ...]:
        """Inspects some files. Returns a line for each option that affects their pixels, or that
        they seem to need.

        Args:
            files: bytes of the files; unreadable ones are skipped.
        """
        counts: Counter[str] = Counter()
        dark_bits = 0
        for data in files:
            counts["all"] += 1
            try:
                facts = decoding.decoded(data, self.max_pixels, self._facts)
            except Exception:  # reading the file in training reports the error
                continue
            counts.update(
                {"alpha": facts.alpha, "dark": facts.dark_bits > 0, "8 bits": facts.bits == 8}
            )
            dark_bits = max(dark_bits, facts.dark_bits)
        return tuple(self._lines(counts, dark_bits))

    def _facts(self, image: Image.Image, data: bytes) -> "_Facts":
        """Transparency and depth of an opened image."""
        color_bits = decoding.bits_of_color(image, data)
        gray = image.mode[0] in "IF"
        has_alpha = alpha.has_alpha(image, data)
        dark_bits = 0
        if (gray or color_bits > 8) and self.window is None and np.prod(image.size) < _LARGE:
            dark_bits = _dark_bits(image, data)
        return _Facts(has_alpha, 16 if gray else color_bits, dark_bits)

    def _lines(self, counts: Counter, dark_bits: int) -> Iterator[str]:
        some = lambda key: f"{counts[key]} of {counts['all']} images looked at"
        if counts["alpha"] and self.channels != 4:
            yield (
                f"transparent pixels show the background {self._background} ({some('alpha')} have "
                "an alpha channel): choose it with background=..., or keep it with channels=4"
            )
        if counts["dark"]:
            yield (
                f"{some('dark')} have room for more than 8 bits, and use {dark_bits} at most: they "
                f"are nearly black; give window=(0, {2**dark_bits - 1})"
            )
        if counts["8 bits"] and self.window is not None:
            yield (f"window={self.window} does not change images of 8 bits ({some('8 bits')} are)")


class _Facts(NamedTuple):
    alpha: bool
    bits: int
    """Bits per channel; 16 for all gray images of more than 8."""
    dark_bits: int
    """Bits that the values need if the image is nearly black, else 0."""


def _dark_bits(image: Image.Image, data: bytes) -> int:
    decoding.load(image)
    if image.mode[0] not in "IF":  # color, of which Pillow keeps the upper 8 bits
        highest, top = 256 * int(np.asarray(image).max()) + 255, 65535
    else:
        values, top = decoding.deep_gray(image, data)
        highest = 0 if decoding.white_is_zero(image) else int(values.max())
    dark = 0 < highest <= top // _DARK
    return highest.bit_length() if dark else 0
