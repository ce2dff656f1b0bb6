"""A folder of TIFF files of named spectral bands, such as satellite images (tifffile)."""

import functools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mae_jax.data.band_names import names_of
from mae_jax.data.channel_windows import Windows, channel_levels, check_windows
from mae_jax.data.files import Files, find
from mae_jax.data.images import BadImage
from mae_jax.data.orientation import turned
from mae_jax.data.reading import spread
from mae_jax.data.slices import NoImage, Slices, no_window, require
from mae_jax.data.sources import Statistics
from mae_jax.data.statistics import usable
from mae_jax.data.tiff_series import series_of
from mae_jax.data.volume_windows import DTYPES
from mae_jax.spec import check_choice
from mae_jax.types import UserError

if TYPE_CHECKING:
    import tifffile

EXTENSIONS = (".tif", ".tiff")
_NODATA = 42113  # GDAL's tag
_COLORS = (3, 6)  # PhotometricInterpretation: palette, YCbCr
_BANDS = "SCQI"  # axes that may be the bands: samples, channels, or pages


class Multispectral(Slices):
    """Images of several bands, see `make`.

    Args:
        files: the files.
        bands: names of the bands that are read, in order; empty if they have none.
        window: see `make`.
        dtype: uint8 or float16.
        names: names of the bands in every file; empty: those of each file.
        channels: number of bands that are read.
    """

    def __init__(
        self,
        files: Files,
        *,
        bands: Sequence[str],
        window: Windows,
        dtype: str,
        names: Sequence[str],
        channels: int,
    ):
        self.bands = tuple(bands)
        options = dict(bands=self.bands, names=names, channels=channels)
        load = partial(_load, **options, window=window, dtype=np.dtype(dtype))
        super().__init__(files, partial(_count, **options, window=window), load)
        if self.bands:
            self.notes = (f"bands: {', '.join(self.bands)}", *self.notes)

    @functools.cached_property
    def statistics(self) -> Statistics | None:
        """Mean and standard deviation of each band, over at most 32 images spread over the set."""
        sums, count = 0, 0
        for index in spread(self.num_examples):
            try:
                pixels = self.read(np.array([index]))["image"][0].astype(np.float64) / 255
            except BadImage:  # reading it in training reports the error
                continue
            sums = sums + np.stack([pixels.sum((0, 1)), (pixels**2).sum((0, 1))])  # [2, C]
            count += pixels.shape[0] * pixels.shape[1]
        if not count:
            return None
        mean, square = sums / count
        std = np.sqrt(np.maximum(0, square - mean**2))
        return Statistics(tuple(mean.tolist()), usable(std.tolist()))


def make(
    path: str,
    *,
    bands: Sequence[str] = (),
    names: Sequence[str] = (),
    window: Windows = None,
    dtype: str = "uint8",
) -> Multispectral:
    """The TIFF files below a folder, folder by folder, sorted by name: images [H, W, bands].

    The bands of a file are its samples, or its pages, of one size and type. Names of bands are read
    from GDAL's metadata, OME-XML, ImageJ's labels, or descriptions, see `band_names.names_of`. If
    all files are in sub-folders, the direct sub-folders are the classes, in the order of their
    names. Values that a file declares as missing (GDAL's nodata), and NaN, become 0.

    Args:
        path: the folder.
        bands: names of the bands to read, in the order of the channels; empty: all, in the order
            of the first file.
        names: names of all bands of every file, in their order, for files that do not name them.
        window: (low, high), the values that become 0 and 255, or one such pair for each channel.
            Required except for uint8.
        dtype: 'uint8', or 'float16', which keeps levels from 0 to 255 between whole numbers; of
            the transforms, those of any rank accept it.

    Raises:
        UserError: tifffile or the folder is missing, no file can be read, values need a window, or
            an option is invalid.
    """
    require("tiff")
    check_choice("multispectral: dtype", dtype, DTYPES)
    if dtype != "uint8" and window is None:
        raise UserError(f"multispectral: dtype={dtype!r} needs a window")
    for option, texts in (("bands", bands), ("names", names)):
        wrong = isinstance(texts, str) or not all(isinstance(one, str) for one in texts)
        if wrong or len(set(texts)) < len(texts):
            raise UserError(
                f"multispectral: {option}={texts!r} should be different names, such as "
                "('B04', 'B03', 'B02')"
            )
    if unknown := [band for band in bands if names and band not in names]:
        raise UserError(f"multispectral: bands: {unknown[0]!r} is none of names={tuple(names)}")
    wanted = lambda file: file.name.lower().endswith(EXTENSIONS)
    files = find("multispectral", path, wanted, ", ".join(EXTENSIONS))
    chosen, channels = _first(files, tuple(bands), tuple(names))
    return Multispectral(
        files,
        bands=chosen,
        window=check_windows("multispectral", window, channels),
        dtype=dtype,
        names=tuple(names),
        channels=channels,
    )


def _first(files: Files, bands: tuple[str, ...], names: tuple[str, ...]):
    """The bands to read, and their number: those given, or else of the first file to be read."""
    if bands:
        return bands, len(bands)
    for index in range(len(files)):
        try:
            own, count = _open(files.path(index), names)
            return own, count
        except Exception:  # counting its examples reports the error
            continue
    return (), len(names)


def _open(path: Path, names: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """Names, which may be missing, and number of the bands of a file."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        count = _layout(file)[1]
        return names or names_of(file, count), count


def _layout(file: "tifffile.TiffFile") -> tuple[int, int]:
    """Axis of the bands among those of the series, -1 if there is one band; and their number.

    Raises:
        BadImage: it is damaged, or has other axes.
    """
    if not len(file.pages):
        raise BadImage("it has no page, or is cut off before the first one")
    series = series_of(file)
    page, axes = series.keyframe, series.get_axes(squeeze=True)
    bands = [axis for axis in axes if axis not in "YX"]
    if "Y" not in axes or "X" not in axes or len(bands) > 1 or (bands and bands[0] not in _BANDS):
        raise BadImage(
            f"its axes are {axes} of {series.get_shape(squeeze=True)}: only rows, "
            "columns and bands make an image"
        )
    if int(page.photometric) in _COLORS:
        raise BadImage(f"its colors are {page.photometric.name}: convert it, or use folder(...)")
    if page.dtype is None or page.dtype.kind not in "biuf":
        raise BadImage(f"it holds {page.dtype} values: save them as integers or floats")
    place = axes.index(bands[0]) if bands else -1
    return place, series.get_shape(squeeze=True)[place] if bands else 1


def _count(path: Path, *, bands, names, channels, window) -> int:
    """Checks the header of a file: one example."""
    import tifffile

    own, count = _open(path, names)
    _order(own, count, bands, channels)
    with tifffile.TiffFile(path) as file:
        page = series_of(file).keyframe
        if 0 in page.shape:
            raise NoImage("TIFF without an image")
        if window is None and page.dtype != np.uint8:
            raise no_window(str(path), page.asarray(maxworkers=1))
    return 1


def _order(own: Sequence[str], count: int, bands: Sequence[str], channels: int) -> list[int]:
    """The places of the bands to read in a file.

    Raises:
        BadImage: a band is missing, or the file has another number of bands.
    """
    if bands and not own:
        raise BadImage(
            f"it does not name its {count} bands: give names=(...), all of them in their order"
        )
    if own and len(own) != count:
        raise BadImage(f"it has {count} bands, and names={tuple(own)} are {len(own)}")
    if not bands:
        if count != channels:
            raise BadImage(f"it has {count} bands, and others {channels}")
        return list(range(count))
    if missing := [band for band in bands if band not in own]:
        raise BadImage(f"it has no band {missing[0]}: its bands are {', '.join(own)}")
    return [list(own).index(band) for band in bands]


def _load(path: Path, _: int, *, bands, names, channels, window, dtype) -> np.ndarray:
    """One image: [H, W, bands]."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        place, count = _layout(file)
        own = names or names_of(file, count)
        order = _order(own, count, bands, channels)
        series = series_of(file)
        if place == 0 and len(series.pages) == count:  # a page for each band
            planes = [series.pages[n].asarray(maxworkers=1) for n in order]
            values = np.stack([plane.reshape(planes[0].shape) for plane in planes], -1)
        else:
            values = series.asarray(maxworkers=1, squeeze=True)
            values = values[..., None] if place < 0 else np.moveaxis(values, place, -1)
            values = values[..., order]
        tags = series.keyframe.tags
        missing, orientation = tags.valueof(_NODATA, ""), tags.valueof(274, 1)
    levels = channel_levels(values, window, dtype)
    try:
        levels[values == float(str(missing).strip("\0 "))] = 0
    except ValueError:  # none declared
        pass
    return turned(levels, orientation)
