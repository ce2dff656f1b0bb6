"""A folder of NIfTI volumes, cut into slices (nibabel)."""

from functools import partial
from pathlib import Path

import numpy as np

from mae_jax.data.files import find
from mae_jax.data.images import Window, check_window
from mae_jax.data.slices import Slices, no_window, require, to_bytes
from mae_jax.types import UserError

EXTENSIONS = (".nii", ".nii.gz")


def make(path: str, *, window: Window | None = None, axis: int = 2) -> Slices:
    """The slices of the volumes below a folder, folder by folder in the order of their names.

    If all files stand in direct sub-folders, these are the classes, in the order of their names.
    Only the slice asked for is read; of a .nii.gz, all that stands before it is unpacked as well,
    so training is much faster on unpacked files (gunzip).

    Args:
        path: the folder.
        window: (low, high), the intensities that become 0 and 255, after the scaling in the file's
            header. Always needed, as intensities have no unit; the error without shows some.
        axis: 0, 1 or 2, which the slices follow. The two others are the rows and the columns of an
            image, in the order in which they are stored; a fourth one is its channels.

    Raises:
        UserError: nibabel is missing, no such folder, no files in it, a file without a readable
            header or of another rank; no window or another axis.
    """
    require("nifti", "nibabel")
    check_window("nifti", window)
    if axis not in (0, 1, 2):
        raise UserError(f"nifti: axis {axis!r} is not supported: choose 0, 1, 2")
    wanted = lambda file: file.name.lower().endswith(EXTENSIONS)
    files = find("nifti", path, wanted, ", ".join(EXTENSIONS))
    options = {"window": window, "axis": axis}
    return Slices(files, partial(_count, **options), partial(_load, **options))


def _count(path: Path, *, window: Window | None, axis: int) -> int:
    """How many slices a volume has, by its header."""
    import nibabel

    image = nibabel.load(path)
    if len(image.shape) not in (3, 4):
        raise UserError(
            f"{path} has shape {image.shape}: volumes should be [X, Y, Z] or [X, Y, Z, C]"
        )
    if image.get_data_dtype().kind not in "iuf":
        raise UserError(
            f"{path} holds {image.get_data_dtype()} values: save them as integers or floats"
        )
    if window is None:
        middle = image.shape[axis] // 2
        raise no_window(f"slice {middle} of {path}", _values(path, middle, axis))
    return image.shape[axis]


def _load(path: Path, k: int, *, window: Window, axis: int) -> np.ndarray:
    """One slice: [H, W, C] uint8."""
    return to_bytes(_values(path, k, axis), window)


def _values(path: Path, k: int, axis: int) -> np.ndarray:
    """[H, W, C] float64 or as stored: one slice, read through nibabel's proxy of the array."""
    import nibabel

    image = nibabel.load(path)
    index = [slice(None)] * len(image.shape)
    index[axis] = k
    values = np.asarray(image.dataobj[tuple(index)])
    return values[:, :, None] if values.ndim == 2 else values
