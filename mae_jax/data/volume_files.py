"""Opens the volumes in single files: NIfTI, Analyze, MGH, stacks of TIFF pages, and .npy."""

import functools
from pathlib import Path

import numpy as np

from mae_jax.data import nifti_files
from mae_jax.data.dicom_header import is_dicom
from mae_jax.data.files import number
from mae_jax.data.images import BadImage
from mae_jax.data.slices import NoImage
from mae_jax.data.tiff_series import series_of
from mae_jax.data.volume_geometry import STACK, VolumeGeometry
from mae_jax.data.volumes import Part, Volume

TIFF = (".tif", ".tiff")
NPY = ".npy"
LOOKED_FOR = (
    f"{nifti_files.LOOKED_FOR}, {', '.join((*nifti_files.MGH, *TIFF, NPY))} and files that start "
    "as DICOM does"
)


def kind_of(path: Path) -> str:
    """'nifti', 'tiff' or 'npy' by the name of a file, or else 'dicom'."""
    name = path.name.lower()
    if name.endswith((*nifti_files.EXTENSIONS, *nifti_files.MGH, ".hdr")):
        return "nifti"
    return "tiff" if name.endswith(TIFF) else "npy" if name.endswith(NPY) else "dicom"


def is_volume(path: Path) -> bool | None:
    """Whether a file may hold a volume or a slice of one; None for the part of another file."""
    name = path.name.lower()
    if name.endswith((*nifti_files.MGH, *TIFF, NPY)):
        return True
    is_nifti = nifti_files.is_nifti(path)
    return is_dicom(path) if is_nifti is False else is_nifti


def open_file(path: Path) -> Volume:
    """Opens a file that is not DICOM.

    Raises:
        NoImage: it holds no volume; the message says what it holds.
        BadImage: it is damaged, or of a kind that is not supported.
        Exception: other errors of readers on damaged files.
    """
    return {"nifti": _nifti, "tiff": _tiff, "npy": _npy}[kind_of(path)](path)


def _nifti(path: Path) -> Volume:
    proxy, header = nifti_files.open_volume(path)
    nifti_files.check_type(proxy.dtype, proxy.shape)
    geometry = VolumeGeometry(
        affine=nifti_files.affine_of(header),
        shape=proxy.shape[:3],
        placed=nifti_files.is_placed(header),
        unit=nifti_files.unit_of(header),
    )
    slope, inter = float(proxy.slope), float(proxy.inter)
    # Memory-mapped, or decompressed once for all crops of a volume that was read.
    stored = functools.cache(proxy.get_unscaled)

    def read(part: Part) -> np.ndarray:
        values = nifti_files.colors_apart(np.asarray(stored()[part]))
        values = values[..., None] if values.ndim == 3 else values
        return values if (slope, inter) == (1, 0) else values.astype(np.float64) * slope + inter

    color = nifti_files.is_color(proxy.dtype)
    channels = len(proxy.dtype.names) if color else (*proxy.shape, 1)[3]
    return Volume(geometry=geometry, channels=channels, read=read, slow=2)


def _npy(path: Path) -> Volume:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in (3, 4):
        raise NoImage(f"arrays of rank {array.ndim}")
    return _stack(array if array.ndim == 4 else array[..., None])


def _stack(array: np.ndarray, *, inverted: bool = False) -> Volume:
    """The volume of a memory-mapped array [D, H, W, C]."""
    _check(array.dtype, array.shape)
    return Volume(
        geometry=VolumeGeometry(affine=STACK, shape=array.shape[:3], placed=False),
        channels=array.shape[3],
        read=lambda part: np.asarray(array[part]),
        inverted=inverted,
    )


def _check(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype.kind not in "biuf":
        raise BadImage(f"it holds {dtype} values: save them as integers or floats")
    if 0 in shape:
        raise BadImage(f"it has shape {shape}, which is empty")


def _tiff(path: Path) -> Volume:
    """The pages of a file, see `series_of`; its axes are [depth, height, width]."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if not len(file.pages):
            raise BadImage("it has no page, or is cut off before the first one")
        series = series_of(file)
        page = series.keyframe
        shape, axes = _tiff_axes(series)
        kinds, dtype = tifffile.PHOTOMETRIC, np.dtype(file.byteorder + page.dtype.char)
        if page.photometric in (kinds.PALETTE, kinds.YCBCR):
            raise BadImage(f"its colors are {page.photometric.name}: convert it to RGB or gray")
        if page.tags.valueof(274, 1) != 1:
            raise BadImage("its pages are turned by an orientation: save them upright")
        if series.is_truncated:
            raise BadImage("it holds more pages than it lists: save it as an ordinary TIFF file")
        _check(page.dtype, shape)
        offset, count = series.dataoffset, len(series.pages)
    white = page.photometric == kinds.MINISWHITE
    target = ["ZYXC".index({"S": "C"}.get(axis, axis)) for axis in axes]
    if offset is not None:  # one uncompressed block
        stored = np.memmap(path, dtype, "r", offset, shape)
        stored = stored[..., None] if len(axes) == 3 else np.moveaxis(stored, range(4), target)
        return _stack(stored, inverted=white)
    sides = dict(zip(axes, shape, strict=True))
    channels = sides.get("C", sides.get("S", 1))
    space = sides["Z"], sides["Y"], sides["X"]
    if count != space[0] * (channels if "C" in axes else 1):
        raise BadImage(
            f"its {space[0]} slices are in {number(count, 'page')} (ImageDepth) that is tiled or "
            "compressed: save a page for each slice"
        )
    return Volume(
        geometry=VolumeGeometry(affine=STACK, shape=space, placed=False),
        channels=channels,
        read=functools.partial(_read_pages, path, axes, space[0], channels),
        inverted=white,
    )


def _tiff_axes(series) -> tuple[tuple[int, ...], str]:
    """Shape and axes of a series: Z, Y and X in some order, and C or S (samples) for channels."""
    pairs = [(n, a) for n, a in zip(series.shape, series.axes) if n > 1 or a in "YXS"]
    axes = "".join(axis for _, axis in pairs)
    depth = [axis for axis in axes if axis in "ZQIT"]
    if len(axes) - axes.count("S") - axes.count("C") == 2:
        raise NoImage("TIFF of a single page")
    axes = axes.replace(depth[0], "Z") if len(depth) == 1 else axes
    if axes not in ("ZYX", "ZCYX", "CZYX", "ZYXS", "ZSYX"):
        raise BadImage(
            f"its axes are {series.axes} of {series.shape}: pages [depth, height, width] with or "
            "without channels make a volume"
        )
    return tuple(n for n, _ in pairs), axes


def _read_pages(path: Path, axes: str, depth: int, channels: int, part: Part) -> np.ndarray:
    """Values [d, h, w, C] of pages that are compressed or apart."""
    import tifffile

    count = channels if "C" in axes else 1  # pages for each depth
    rows = []
    with tifffile.TiffFile(path) as file:
        pages = series_of(file).pages
        for z in range(*part[0].indices(depth)):
            numbers = [c * depth + z if axes[0] == "C" else z * count + c for c in range(count)]
            if any(pages[n] is None for n in numbers):
                raise BadImage(f"the page of slice {z} is missing")
            planes = [pages[n].asarray(maxworkers=1) for n in numbers]
            planes = [np.moveaxis(p, 0, 2) if axes == "ZSYX" else p for p in planes]
            rows.append(np.stack(planes, -1) if planes[0].ndim == 2 else planes[0])
    return np.stack(rows)[:, part[1], part[2]] if rows else np.empty((0, 0, 0, channels))
