"""A folder of DICOM files, of one frame or of many (pydicom)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mae_jax.data.files import find
from mae_jax.data.images import Window, check_window
from mae_jax.data.slices import Slices, no_window, require, to_bytes
from mae_jax.types import UserError

if TYPE_CHECKING:
    import pydicom

EXTENSIONS = (".dcm", ".dicom")
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

_PER_FRAME, _SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
_TAGS = (
    *("Modality", "Rows", "NumberOfFrames", "PhotometricInterpretation", "BitsAllocated"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", _PER_FRAME, _SHARED),
)


def make(path: str, *, window: Window | None = None) -> Slices:
    """The frames of the DICOM files below a folder, folder by folder in the order of their names.

    Files are DICOM if they are named .dcm or .dicom, or carry the mark DICM after 128 bytes; an
    index (DICOMDIR) is left out. If all of them stand in direct sub-folders, these are the
    classes, in the order of their names.

    Grey images are rescaled to the units of their modality (slope and intercept, or a table),
    mapped to 0..255 by the window, and inverted where the file says that white is its lowest
    value (MONOCHROME1). Colour images become RGB; of 8 bits, they stay as they are without a
    window.

    Args:
        path: the folder.
        window: (low, high), the values that become 0 and 255, in rescaled units (CT: Hounsfield);
            None: the first linear window that each file itself names.

    Raises:
        UserError: pydicom is missing, no such folder, no files in it; a file without a readable
            header, without an image, with a palette, compressed in a way that needs a package that
            is missing, or without a window of its own if none is given.
    """
    require("dicom", "pydicom")
    check_window("dicom", window)
    looked_for = f"{', '.join(EXTENSIONS)} and files marked DICM"
    files = find("dicom", path, _is_dicom, looked_for)
    return Slices(files, partial(_count, window=window), partial(_load, window=window))


def _is_dicom(path: Path) -> bool:
    if path.name == "DICOMDIR" or not path.is_file():
        return False
    if path.name.lower().endswith(EXTENSIONS):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _count(path: Path, *, window: Window | None) -> int:
    """How many frames a file holds, by its header, which is checked."""
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    if "Rows" not in header:
        kind = header.get("Modality", "unknown")
        raise UserError(f"{path} holds no image (modality {kind}): move it out of the folder")
    photometric = header.PhotometricInterpretation
    if photometric not in GREY + COLOUR:
        raise UserError(
            f"{path}: images of the kind {photometric!r} are not supported: convert them to one "
            f"of {', '.join(GREY + COLOUR)}"
        )
    _check_compression(path, header)
    count = int(header.get("NumberOfFrames") or 1)
    if window is None:
        _check_own_windows(path, header, count)
    return count


def _check_own_windows(path: Path, header: "pydicom.Dataset", count: int) -> None:
    """Raises UserError if a frame can only be mapped to bytes through a window of the user's."""
    if header.PhotometricInterpretation in COLOUR:
        if header.BitsAllocated != 8:
            raise no_window(str(path), _values(path, 0)[0])
        return
    for frame in range(count):
        if _own_window(header, frame) is None:
            what = f"{path} has no linear window (WindowCenter, WindowWidth) of its own, and"
            raise no_window(what, _values(path, frame)[0])


def _check_compression(path: Path, header: "pydicom.Dataset") -> None:
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        missing = "; ".join(decoder.missing_dependencies)
        raise UserError(
            f"{path} is compressed ({syntax.name}), and no package that unpacks it is installed; "
            f"install one of: {missing}"
        )


def _load(path: Path, frame: int, *, window: Window | None) -> np.ndarray:
    """One frame: [H, W, C] uint8."""
    values, header = _values(path, frame)
    if header.PhotometricInterpretation in COLOUR:
        return to_bytes(values, window)
    pixels = to_bytes(values, window or _own_window(header, frame))[:, :, None]
    return 255 - pixels if header.PhotometricInterpretation == "MONOCHROME1" else pixels


def _values(path: Path, frame: int) -> tuple[np.ndarray, "pydicom.Dataset"]:
    """Grey values [H, W] in rescaled units or RGB [H, W, 3] as stored, and the header."""
    import pydicom
    from pydicom.datadict import tag_for_keyword
    from pydicom.pixels import apply_modality_lut, pixel_array

    header = pydicom.Dataset()
    tags = [tag_for_keyword(keyword) for keyword in _TAGS]
    values = pixel_array(path, index=frame, ds_out=header, specific_tags=tags)
    if values.ndim == 3:
        return values, header
    group = _group(header, frame, "PixelValueTransformationSequence")
    return apply_modality_lut(values, group), header


def _own_window(header: "pydicom.Dataset", frame: int) -> Window | None:
    """The first window in the header, if it is linear (DICOM PS3.3, C.11.2.1.2)."""
    group = _group(header, frame, "FrameVOILUTSequence")
    center, width = (_first(group.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = group.get("VOILUTFunction") or "LINEAR"
    if center is None or width is None or function not in ("LINEAR", "LINEAR_EXACT"):
        return None
    # The window of LINEAR reaches from the middle of its lowest value to that of its highest.
    low, high = center - width / 2, center + width / 2 - (function == "LINEAR")
    return (low, high) if low < high else None


def _group(header: "pydicom.Dataset", frame: int, name: str) -> "pydicom.Dataset":
    """Where a frame's rescaling or window stands: multi-frame files of the enhanced kinds have
    groups for each frame and for all of them (DICOM PS3.3, C.7.6.16); others only a header.
    """
    of_frame = (header.get(_PER_FRAME) or [])[frame : frame + 1]
    of_all = (header.get(_SHARED) or [])[:1]
    for group in (*of_frame, *of_all):
        if group.get(name):
            return group[name][0]
    return header


def _first(value) -> float | None:
    """A number of a header that may have several, or none."""
    several = isinstance(value, Sequence) and not isinstance(value, str)
    first = value[0] if several else value
    return None if first in (None, "") else float(first)
