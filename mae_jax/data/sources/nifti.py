"""A folder of NIfTI volumes, read as slices (nibabel)."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mae_jax.data.files import find
from mae_jax.data.images import BadImage, Window, check_window
from mae_jax.data.slices import NoImage, Slices, no_window, require, to_bytes
from mae_jax.types import UserError

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy

EXTENSIONS = (".nii", ".nii.gz")
_HEADER = ".hdr"
_HEADER_SIZES = (348, 540)
"""Size that a separate header file starts with: NIfTI-1 and Analyze, NIfTI-2."""


def make(path: str, *, window: Window | None = None, axis: int = 2) -> Slices:
    """The slices of the volumes below a folder, folder by folder, sorted by name.

    Reads .nii, .nii.gz, and pairs of .hdr and .img (NIfTI and Analyze). Files without a volume
    (surfaces, deformation fields, tables) are left out and counted. If all volumes are in
    sub-folders, the direct sub-folders are the classes, in the order of their names. Each slice is
    read on its own. In a .nii.gz that decompresses all data before it, so training is much faster
    on decompressed files (gunzip).

    Args:
        path: the folder.
        window: (low, high), the intensities that become 0 and 255, after the scaling in the file's
            header. Required, since intensities have no unit; the error without it shows the range
            of a slice. Only 8-bit colors need none.
        axis: axis along which to slice, 0, 1 or 2. The other two are rows and columns of an image,
            in stored order; a fourth axis, or the colors, are its channels.

    Raises:
        UserError: nibabel or the folder is missing, the folder has no volume, or `window` or `axis`
            is invalid.
    """
    require("nifti")
    check_window("nifti", window)
    if axis not in (0, 1, 2):
        raise UserError(f"nifti: axis {axis!r} is not supported: choose 0, 1, 2")
    looked_for = f"{', '.join(EXTENSIONS)} and pairs of {_HEADER} and .img"
    files = find("nifti", path, _is_nifti, looked_for)
    options = {"window": window, "axis": axis}
    return Slices(files, partial(_count, **options), partial(_load, **options))


def _is_nifti(path: Path) -> bool | None:
    name = path.name.lower()
    if name.endswith(".img"):
        header = path.with_suffix(".hdr" if path.suffix == ".img" else ".HDR")
        return None if header.is_file() and _is_nifti(header) else False  # None: part of the pair
    if not name.endswith(_HEADER):
        return name.endswith(EXTENSIONS)
    if not path.is_file():
        return True  # reading it reports the error
    try:
        with path.open("rb") as file:  # other formats use the extension .hdr, too
            head = file.read(4)
    except OSError:
        return True
    return any(int.from_bytes(head, order) in _HEADER_SIZES for order in ("little", "big"))


def _count(path: Path, *, window: Window | None, axis: int) -> int:
    """Checks the header of a volume, and returns its number of slices."""
    volume = _open(path)
    dtype, shape = volume.dtype, volume.shape
    if dtype.kind not in "iuf" and not _is_color(dtype):
        raise BadImage(f"it holds {dtype} values: save them as integers or floats")
    if _is_color(dtype) and len(shape) == 4:
        raise BadImage(f"it has shape {shape} and colors: volumes of colors should be [X, Y, Z]")
    if 0 in shape:
        raise BadImage(f"it has shape {shape}, which is empty")
    if window is None and not _is_color(dtype):
        middle = shape[axis] // 2
        raise no_window(f"slice {middle} of {path}", _values(path, middle, axis))
    return shape[axis]


def _open(path: Path) -> "ArrayProxy":
    """A lazy array of a volume, [X, Y, Z] or [X, Y, Z, C]. Ignores its position in space, which is
    often damaged.

    Raises:
        NoImage: the file does not hold a volume.
        BadImage: the file is damaged.
    """
    import nibabel

    known, sniff = [], None
    for kind in nibabel.imageclasses.all_image_classes:
        fits, sniff = kind.path_maybe_image(path, sniff)
        known += [kind] if fits else []
    if not known:
        raise BadImage("it does not start as NIfTI files do (a .nii.gz is gzipped, a .nii is not)")
    if issubclass(known[0], nibabel.Cifti2Image):
        raise NoImage("surface data (CIFTI)")
    files = known[0].filespec_to_file_map(path)
    with files.get("header", files["image"]).get_prepare_fileobj("rb") as file:
        header = known[0].header_class.from_fileobj(file)
    if not Path(files["image"].filename).exists():
        raise BadImage(f"{files['image'].filename}, which should hold its values, is missing")
    volume = known[0].ImageArrayProxy(files["image"].filename, header)
    while len(volume.shape) > 4 and volume.shape[-1] == 1:
        volume = volume.reshape(volume.shape[:-1])
    if len(volume.shape) not in (3, 4):
        raise NoImage(f"arrays of rank {len(volume.shape)} (vectors, surfaces, tables)")
    return volume


def _is_color(dtype: np.dtype) -> bool:
    """Whether values are RGB or RGBA of 8 bits each."""
    return dtype.names in (("R", "G", "B"), ("R", "G", "B", "A"))


def _load(path: Path, k: int, *, window: Window | None, axis: int) -> np.ndarray:
    """One slice: [H, W, C] uint8."""
    return to_bytes(_values(path, k, axis), window)


def _values(path: Path, k: int, axis: int) -> np.ndarray:
    """One slice: [H, W, C], scaled as float64 or as stored."""
    volume = _open(path)
    index = [slice(None)] * len(volume.shape)
    index[axis] = k
    values = np.asarray(volume[tuple(index)])
    if _is_color(values.dtype):
        return np.stack([values[name] for name in values.dtype.names], axis=-1)
    return values[:, :, None] if values.ndim == 2 else values
