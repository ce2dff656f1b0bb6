"""A folder of TIFF files of any depth, number of channels and number of pages (tifffile)."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mae_jax.data.files import find
from mae_jax.data.images import BadImage, Window, check_window
from mae_jax.data.slices import NoImage, Slices, no_window, require, to_bytes
from mae_jax.types import UserError

if TYPE_CHECKING:
    import tifffile

EXTENSIONS = (".tif", ".tiff")
PAGES = ("examples", "channels")


def make(path: str, *, pages: str = "examples", window: Window | None = None) -> Slices:
    """The TIFF files below a folder, folder by folder in the order of their names.

    If all of them stand in direct sub-folders, these are the classes, in the order of their names.

    Args:
        path: the folder.
        pages: what the pages of a file are: 'examples', one each, or 'channels', together those
            of one example (pages with several channels themselves add all of theirs).
        window: (low, high), the values that become 0 and 255. Needed for anything but 8 bits,
            which stays as it is without. Where a file says that white is its lowest value, the
            result is inverted.

    Raises:
        UserError: tifffile is missing, no such folder, no image in it, a file with values that
            need a window; other pages or window.
    """
    require("tiff")
    check_window("tiff", window)
    if pages not in PAGES:
        raise UserError(f"tiff: pages {pages!r} is not one of {', '.join(PAGES)}")
    wanted = lambda file: file.name.lower().endswith(EXTENSIONS)
    files = find("tiff", path, wanted, ", ".join(EXTENSIONS))
    load = _page if pages == "examples" else _all_pages
    return Slices(files, partial(_count, pages=pages, window=window), partial(load, window=window))


def _count(path: Path, *, pages: str, window: Window | None) -> int:
    """How many examples a file holds, by its chain of pages and the header of the first."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if not len(file.pages):
            raise BadImage("it has no page, or is cut off before the first one")
        first, count = file.pages[0], len(file.pages)
        if 0 in first.shape:
            raise NoImage("TIFF without an image")
        if not first.dataoffsets:
            raise BadImage("its first page has no pixels")
        if first.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise BadImage("it has a palette: convert it to RGB, or read it with folder(...)")
        one_header = count == 1 and (file.is_imagej or file.is_shaped) and not file.is_ome
        if one_header and file.series[0].is_truncated:
            raise BadImage(
                "it holds more pages than it lists, as very large files of ImageJ do: save it as "
                "an ordinary TIFF or BigTIFF file"
            )
        if window is None and first.dtype != np.uint8:
            raise no_window(str(path), first.asarray(maxworkers=1))
    return count if pages == "examples" else 1


def _page(path: Path, k: int, *, window: Window | None) -> np.ndarray:
    """One page: [H, W, C] uint8."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        return _pixels(file.pages[k], window)


def _all_pages(path: Path, _: int, *, window: Window | None) -> np.ndarray:
    """The channels of all pages: [H, W, C] uint8."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        pages = [_pixels(page, window) for page in file.pages]
    sizes = sorted({page.shape[:2] for page in pages})
    if len(sizes) > 1:
        raise ValueError(f"its pages cannot be channels, their sizes differ: {sizes}")
    return np.concatenate(pages, axis=2)


def _pixels(page: "tifffile.TiffPage", window: Window | None) -> np.ndarray:
    """[H, W, C] uint8 of a page whose channels may stand first (planar), last, or be one."""
    values = page.asarray(maxworkers=1)  # the pipeline has threads of its own
    if page.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"its axes are {page.axes}: only YX, YXS and SYX make an image")
    if page.axes != "YXS":
        values = values[:, :, None] if page.axes == "YX" else np.moveaxis(values, 0, 2)
    pixels = to_bytes(values, window)
    return 255 - pixels if page.photometric == 0 else pixels  # 0: white is the lowest value
