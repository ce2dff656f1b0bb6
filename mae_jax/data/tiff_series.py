"""The images of a TIFF file that make one array (tifffile)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tifffile

_PLANES = ("YX", "YXS", "SYX")


def series_of(file: "tifffile.TiffFile") -> "tifffile.TiffPageSeries":
    """The first series of a file. Of a file that was written page by page, where tifffile finds a
    series for each page, all of them as one series with the axis I before the others: if all pages
    but overviews and masks have one shape, dtype and kind of colors. In OME-TIFF, a series is an
    image of its own, and only the first one is read.

    Args:
        file: with at least one page.
    """
    import tifffile

    every = file.series
    full = [one for one in every if not (one.keyframe.is_reduced or one.keyframe.is_mask)]
    if file.is_ome or len(full) < 2 or len({_kind(one) for one in full}) > 1:
        return every[0]
    page, axes = full[0].keyframe, full[0].keyframe.axes
    if len(full[0].pages) > 1 or axes not in _PLANES:
        return every[0]
    pages, shape = [one.pages[0] for one in full], (len(full), *page.shape)
    return tifffile.TiffPageSeries(pages, shape, page.dtype, f"I{axes}", parent=file)


def _kind(series: "tifffile.TiffPageSeries") -> tuple:
    """What pages of one array have in common."""
    page = series.keyframe
    return len(series.pages), page.shape, page.axes, page.dtype, page.photometric
