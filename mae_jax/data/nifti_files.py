"""Opens volumes in NIfTI, Analyze and MGH files (nibabel)."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mae_jax.data.images import BadImage
from mae_jax.data.slices import NoImage
from mae_jax.data.volume_geometry import MILLIMETERS

if TYPE_CHECKING:
    from nibabel.arrayproxy import ArrayProxy
    from nibabel.spatialimages import SpatialHeader

EXTENSIONS = (".nii", ".nii.gz")
LOOKED_FOR = ".nii, .nii.gz and pairs of .hdr and .img"
MGH = (".mgh", ".mgz")
"""Extensions of FreeSurfer's volumes."""
_HEADER = ".hdr"
_HEADER_SIZES = (348, 540)
"""Size that a separate header file starts with: NIfTI-1 and Analyze, NIfTI-2."""
_UNITS = {1: "meter", 2: "mm", 3: "micron"}
"""NIFTI_UNITS_METER, _MM and _MICRON of nifti1.h: the lowest three bits of xyzt_units."""


def is_nifti(path: Path) -> bool | None:
    """Whether a file is NIfTI or Analyze; None for the part of a pair that holds the values."""
    name = path.name.lower()
    if name.endswith(".img"):
        header = path.with_suffix(".hdr" if path.suffix == ".img" else ".HDR")
        return None if header.is_file() and is_nifti(header) else False  # None: part of the pair
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


def open_volume(path: Path) -> "tuple[ArrayProxy, SpatialHeader]":
    """A lazy array of a volume, [X, Y, Z] or [X, Y, Z, C], and its header. Ignores its position in
    space, which is often damaged; see `affine_of`.

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
    return volume, header


def is_color(dtype: np.dtype) -> bool:
    """Whether values are RGB or RGBA of 8 bits each."""
    return dtype.names in (("R", "G", "B"), ("R", "G", "B", "A"))


def check_type(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Raises BadImage unless a volume holds numbers or colors, and is not empty."""
    if dtype.kind not in "iuf" and not is_color(dtype):
        raise BadImage(f"it holds {dtype} values: save them as integers or floats")
    if is_color(dtype) and len(shape) == 4:
        raise BadImage(f"it has shape {shape} and colors: volumes of colors should be [X, Y, Z]")
    if 0 in shape:
        raise BadImage(f"it has shape {shape}, which is empty")


def affine_of(header: "SpatialHeader") -> np.ndarray:
    """[4, 4] float64, maps a voxel (i, j, k) to (x, y, z) in mm, where x increases to the right, y
    to the front and z upward (RAS+). Headers in meters or microns are converted, see `unit_of`.

    Raises:
        ValueError: the header holds a quaternion that is not one.
    """
    import nibabel

    mgh = isinstance(header, nibabel.MGHImage.header_class)
    affine = np.array(header.get_affine() if mgh else header.get_best_affine(), np.float64)
    affine[:3] *= MILLIMETERS[unit_of(header)]
    return affine


def unit_of(header: "SpatialHeader") -> str:
    """Unit of a header's affine, a key of `volume_geometry.MILLIMETERS`: that of NIfTI's field
    xyzt_units, and 'mm' if it names none.
    """
    import nibabel

    is_nifti = isinstance(header, nibabel.Nifti1Header)
    return _UNITS.get(int(header["xyzt_units"]) % 8, "mm") if is_nifti else "mm"


def is_placed(header: "SpatialHeader") -> bool:
    """Whether a header says where the volume is, rather than only how large its voxels are."""
    import nibabel

    if isinstance(header, nibabel.Nifti1Header):
        return bool(header["sform_code"] or header["qform_code"])
    return isinstance(header, nibabel.MGHImage.header_class)


def colors_apart(values: np.ndarray) -> np.ndarray:
    """Values [...] of colors as [..., 3 or 4] uint8; others unchanged."""
    if not is_color(values.dtype):
        return values
    return np.stack([values[name] for name in values.dtype.names], axis=-1)
