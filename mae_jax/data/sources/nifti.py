"""A folder of NIfTI volumes, read as slices (nibabel)."""

from functools import partial
from pathlib import Path

import numpy as np

from mae_jax.data.files import find
from mae_jax.data.images import Window, check_window
from mae_jax.data.nifti_files import (
    LOOKED_FOR,
    check_type,
    colors_apart,
    is_color,
    is_nifti,
    open_volume,
)
from mae_jax.data.slices import Slices, no_window, require, to_bytes
from mae_jax.types import UserError


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
    files = find("nifti", path, is_nifti, LOOKED_FOR)
    options = {"window": window, "axis": axis}
    return Slices(files, partial(_count, **options), partial(_load, **options))


def _count(path: Path, *, window: Window | None, axis: int) -> int:
    """Checks the header of a volume, and returns its number of slices."""
    volume = open_volume(path)[0]
    dtype, shape = volume.dtype, volume.shape
    check_type(dtype, shape)
    if window is None and not is_color(dtype):
        middle = shape[axis] // 2
        raise no_window(f"slice {middle} of {path}", _values(path, middle, axis))
    return shape[axis]


def _load(path: Path, k: int, *, window: Window | None, axis: int) -> np.ndarray:
    """One slice: [H, W, C] uint8."""
    return to_bytes(_values(path, k, axis), window)


def _values(path: Path, k: int, axis: int) -> np.ndarray:
    """One slice: [H, W, C], scaled as float64 or as stored."""
    volume = open_volume(path)[0]
    index = [slice(None)] * len(volume.shape)
    index[axis] = k
    values = colors_apart(np.asarray(volume[tuple(index)]))
    return values[:, :, None] if values.ndim == 2 else values
