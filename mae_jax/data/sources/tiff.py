"""A folder of TIFF files of any depth, number of channels and number of pages (tifffile)."""

import functools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mae_jax.data.files import find
from mae_jax.data.images import BadImage, Window, check_window
from mae_jax.data.orientation import turned
from mae_jax.data.slices import NoImage, Slices, no_window, require, to_bytes
from mae_jax.types import UserError

if TYPE_CHECKING:
    import tifffile

EXTENSIONS = (".tif", ".tiff")
PAGES = ("examples", "channels")
_JPEG = (6, 7, 33007, 34892)  # compressions with a codec that converts YCbCr to RGB
READING = "pages of TIFF files are turned by their orientation; overviews and masks are left out"
"""How decoding differs from earlier versions; stored in runs, see `reading.CHANGES`."""


def make(path: str, *, pages: str = "examples", window: Window | None = None) -> Slices:
    """The TIFF files below a folder, folder by folder, sorted by name.

    If all files are in sub-folders, the direct sub-folders are the classes, in the order of their
    names. Pages are turned upright by their orientation. Overviews and masks (NewSubfileType 1 and
    4, as in cloud-optimized GeoTIFF) are left out, unless a file holds nothing else.

    Args:
        path: the folder.
        pages: 'examples': each page is an example; 'channels': the channels of all pages of a file
            are concatenated to one example.
        window: (low, high), the values that become 0 and 255. Required except for 8 bits, which
            are unchanged without it. The result is inverted if white is the lowest value.

    Raises:
        UserError: tifffile or the folder is missing, the folder has no image, values of a file need
            a window, or `pages` or `window` is invalid.
    """
    require("tiff")
    check_window("tiff", window)
    if pages not in PAGES:
        raise UserError(f"tiff: pages {pages!r} is not one of {', '.join(PAGES)}")
    wanted = lambda file: file.name.lower().endswith(EXTENSIONS)
    files = find("tiff", path, wanted, ", ".join(EXTENSIONS))
    load = _page if pages == "examples" else _all_pages
    reduced: list[int] = []  # number of overviews and masks of each file
    count = partial(_count, pages=pages, window=window, reduced=reduced)
    source = Slices(files, count, partial(load, window=window))
    source.reading = READING
    if sum(reduced):
        source.notes += (f"left out {sum(reduced)} pages that are overviews or masks",)
    return source


def _count(path: Path, *, pages: str, window: Window | None, reduced: list[int]) -> int:
    """Checks the first page of a file, and returns its number of examples."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if not len(file.pages):
            raise BadImage("it has no page, or is cut off before the first one")
        full = _full_pages(path) if len(file.pages) > 1 else range(len(file.pages))
        first, count = file.pages[full[0]], len(full)
        if 0 in first.shape:
            raise NoImage("TIFF without an image")
        if not first.dataoffsets:
            raise BadImage("its first page has no pixels")
        reduced.append(len(file.pages) - count)
        photometric = tifffile.PHOTOMETRIC
        if first.photometric == photometric.YCBCR and first.compression not in _JPEG:
            raise BadImage("its colors are YCbCr: convert it to RGB, or read it with folder(...)")
        if first.photometric == photometric.PALETTE:
            raise BadImage("it has a palette: convert it to RGB, or read it with folder(...)")
        one_header = len(file.pages) == 1 and (file.is_imagej or file.is_shaped) and not file.is_ome
        if one_header and file.series[0].is_truncated:
            raise BadImage(
                "it holds more pages than it lists, as very large files of ImageJ do: save it as "
                "an ordinary TIFF or BigTIFF file"
            )
        if window is None and first.dtype != np.uint8:
            raise no_window(str(path), first.asarray(maxworkers=1))
    return count if pages == "examples" else 1


def _find_full_pages(file: "tifffile.TiffFile") -> Sequence[int]:
    """Indices of the pages that are neither overviews nor masks; all pages if there are none."""
    count = len(file.pages)
    full = [k for k in range(count) if not _is_reduced(file.pages[k])]
    return full if 0 < len(full) < count else range(count)


def _is_reduced(page: "tifffile.TiffPage") -> bool:
    """Whether a page is an overview or a mask, by NewSubfileType or, in old files, SubfileType."""
    flags = int(page.tags.valueof(254, 0) or 0)
    return bool(flags & 5) or page.tags.valueof(255, 1) == 2


def _full_pages(path: Path) -> Sequence[int]:
    """Cached `_find_full_pages` of a file, since that reads the header of every page."""
    return _full_pages_at(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _full_pages_at(path: Path, _modified: int) -> Sequence[int]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        return _find_full_pages(file)


def _page(path: Path, k: int, *, window: Window | None) -> np.ndarray:
    """One page: [H, W, C] uint8."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if k or _is_reduced(file.pages[0]):
            k = _full_pages(path)[k]
        return _pixels(file.pages[k], window)


def _all_pages(path: Path, _: int, *, window: Window | None) -> np.ndarray:
    """The channels of all pages: [H, W, C] uint8."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        pages = [_pixels(file.pages[k], window) for k in _full_pages(path)]
    sizes = sorted({page.shape[:2] for page in pages})
    if len(sizes) > 1:
        raise ValueError(f"its pages cannot be channels, their sizes differ: {sizes}")
    return np.concatenate(pages, axis=2)


def _pixels(page: "tifffile.TiffPage", window: Window | None) -> np.ndarray:
    """[H, W, C] uint8 of a page with its channels first (planar), last, or a single one."""
    values = page.asarray(maxworkers=1)  # the pipeline has threads of its own
    if page.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"its axes are {page.axes}: only YX, YXS and SYX make an image")
    if page.axes != "YXS":
        values = values[:, :, None] if page.axes == "YX" else np.moveaxis(values, 0, 2)
    pixels = to_bytes(values, window)
    pixels = 255 - pixels if page.photometric == 0 else pixels  # 0: white is the lowest value
    return turned(pixels, page.tags.valueof(274, 1))
