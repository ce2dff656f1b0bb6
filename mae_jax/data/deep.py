"""Decodes color images of more than 8 bits per channel, which Pillow would reduce to 8."""

import importlib
import io

import numpy as np
from PIL import Image

_LEFT_OUT = "leave window out, which keeps the upper 8 bits"


def deep_color(image: Image.Image, data: bytes) -> np.ndarray:
    """The values of a file at full depth, as stored.

    Args:
        image: opened image, which holds format and page; see `decoding.opened`.
        data: bytes of the file.

    Returns:
        [H, W, 2 to 4] uint16: gray, or red, green and blue; then alpha, if there is any.

    Raises:
        ValueError: a package is missing, or this kind of file is not supported.
    """
    if image.format == "PPM":
        return _portable_pixmap(image, data)
    if image.format == "TIFF":
        return _tiff(image, data)
    codecs = _package("imagecodecs")
    decode = {"PNG": "png_decode", "JPEG2000": "jpeg2k_decode", "AVIF": "avif_decode"}
    # imagecodecs defines its functions lazily, in a module __getattr__.
    return getattr(codecs, decode[image.format])(data)


def _portable_pixmap(image: Image.Image, data: bytes) -> np.ndarray:
    if not data.startswith(b"P6"):
        raise ValueError(f"a text file (P3) of more than 8 bits a channel: {_LEFT_OUT}")
    width, height = image.size
    values = np.frombuffer(data, ">u2", 3 * width * height, image.tile[0][2])
    return values.reshape(height, width, 3).astype(np.uint16)


def _tiff(image: Image.Image, data: bytes) -> np.ndarray:
    tifffile = _package("tifffile")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[image.tell()]
        values = page.asarray(maxworkers=1)
        plain = page.photometric in (0, 1, 2) and 1 not in page.extrasamples  # 1: premultiplied
        if not plain or page.axes not in ("YXS", "SYX") or values.dtype != np.uint16:
            raise ValueError(
                f"a TIFF of {values.dtype} values of the kind {page.photometric.name}: "
                f"{_LEFT_OUT}, or read it with tiff(...)"
            )
        values = np.moveaxis(values, 0, 2) if page.axes == "SYX" else values
        return values if len(page.extrasamples) == 0 else _with_alpha(page, values)


def _with_alpha(page, values: np.ndarray) -> np.ndarray:
    """Drops extra samples that the file declares as neither color nor alpha (kind 0)."""
    colors = values.shape[2] - len(page.extrasamples)
    alphas = [i for i, kind in enumerate(page.extrasamples, colors) if kind == 2]
    return values[:, :, [*range(colors), *alphas[:1]]]


def _package(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"a window for color of more than 8 bits needs {name}, which is not installed: pip "
            f"install {name}, or {_LEFT_OUT}"
        ) from error
