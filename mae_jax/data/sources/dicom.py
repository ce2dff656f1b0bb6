"""A folder of DICOM files, of one frame or of many (pydicom)."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mae_jax.data import dicom_codecs
from mae_jax.data.dicom_header import (
    COLOR,
    GRAY,
    PALETTE,
    PER_FRAME,
    SHARED,
    Image,
    check_whole,
    kind_of,
    looks_like_dicom,
    opened,
)
from mae_jax.data.dicom_numbers import number
from mae_jax.data.files import find
from mae_jax.data.images import BadImage, Window, check_window
from mae_jax.data.slices import Remarks, Slices, no_window, require, to_bytes

if TYPE_CHECKING:
    import pydicom

EXTENSIONS = (".dcm", ".dicom")
READING = (
    "DICOM values above unused bits (HighBit) are read as they are meant, and a RescaleSlope or "
    "RescaleIntercept without the other is applied"
)
"""How decoding differs from earlier versions; stored in runs, see `reading.CHANGES`."""


def make(path: str, *, window: Window | None = None) -> Slices:
    """The frames of the DICOM files below a folder, folder by folder, sorted by name.

    A file is DICOM if it is named .dcm or .dicom, has DICM after 128 bytes, or (old files) starts
    with the first element of a header. Kinds without an image (reports, plans, structures,
    presentation states, waveforms, documents, an index) are left out and counted. If all images are
    in sub-folders, the direct sub-folders are the classes, in the order of their names.

    Gray images are rescaled to the units of their modality (slope and intercept, or a table),
    mapped to 0..255 by the window, and inverted if white is the lowest value (MONOCHROME1). Color
    and palette images become RGB; without a window, 8-bit color is unchanged. A deflated file is
    decompressed again for each of its frames.

    Args:
        path: the folder.
        window: (low, high), the values that become 0 and 255, in rescaled units (CT: Hounsfield);
            None: the first linear window in the header of each file.

    Raises:
        UserError: pydicom or the folder is missing, the folder has no image, or `window` is None
            and an image has no window.
    """
    require("dicom")
    dicom_codecs.register()
    check_window("dicom", window)
    looked_for = f"{', '.join(EXTENSIONS)} and files that start as DICOM does"
    files, remarks = find("dicom", path, _is_dicom, looked_for), Remarks()
    count = partial(_count, window=window, remarks=remarks)
    source = Slices(files, count, partial(_load, window=window), remarks)
    source.reading = READING
    return source


def _is_dicom(path: Path) -> bool:
    if path.name == "DICOMDIR" or not path.is_file():
        return False
    return path.name.lower().endswith(EXTENSIONS) or looks_like_dicom(path)


def _count(path: Path, *, window: Window | None, remarks: Remarks) -> int:
    """Checks the header of a file, and returns its number of frames."""
    with opened(path) as image:
        _check_decoder(image)
        _unused_low_bits(image)  # raises if HighBit is invalid
        kind = kind_of(image.header)
        if kind and "Image" not in kind:
            remarks.add(f"{kind} with pixels, read as images", str(path))
        frames = range(image.frames if image.header.get(PER_FRAME) else 1)
        if not all([_rescaling(image.header, frame).complete for frame in frames]):
            fact = "RescaleSlope or RescaleIntercept without the other, read as 1 or as 0"
            remarks.add(fact, str(path))
        if window is None:
            _check_own_windows(path, image, frames)
        if not image.header.get("PhotometricInterpretation"):
            remarks.add("no PhotometricInterpretation, read as MONOCHROME2", str(path))
        if image.header.get("NumberOfFrames") is None and image.frames > 1:
            remarks.add("no NumberOfFrames, inferred from the size of the pixels", str(path))
        return image.frames


def _check_own_windows(path: Path, image: Image, frames: range) -> None:
    """Raises UserError if a frame needs a window from the user."""
    if image.photometric in COLOR and image.options["bits_allocated"] != 8:
        raise no_window(str(path), _values(image, 0))
    for frame in frames if image.photometric in GRAY else ():
        if _own_window(image.header, frame) is None:
            what = f"{path} has no linear window (WindowCenter, WindowWidth) of its own, and"
            raise no_window(what, _values(image, frame))


def _check_decoder(image: Image) -> None:
    """Raises BadImage if no installed package decompresses the pixels."""
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(image.syntax)
    except NotImplementedError as error:
        raise BadImage(
            f"it is compressed as {image.syntax.name}, which is not supported: decompress it"
        ) from error
    if not decoder.is_available:
        raise BadImage(
            f"it is compressed ({image.syntax.name}), and the package that decompresses it is not "
            "installed: pip install imagecodecs"
        )


def _load(path: Path, frame: int, *, window: Window | None) -> np.ndarray:
    """One frame: [H, W, C] uint8."""
    with opened(path) as image:
        values = _values(image, frame)
    if image.photometric not in GRAY:
        return to_bytes(values, window)
    pixels = to_bytes(values, window or _own_window(image.header, frame))[:, :, None]
    return 255 - pixels if image.photometric == "MONOCHROME1" else pixels


def _values(image: Image, frame: int) -> np.ndarray:
    """Gray values [H, W] in rescaled units, or RGB [H, W, 3]."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder

    check_whole(image, frame)
    shift = _unused_low_bits(image)
    options = {**image.options, "correct_unused_bits": shift == 0}
    decoder = get_decoder(image.syntax)
    values, _ = decoder.as_array(image.pixels, index=frame, **options)
    if shift:
        values = _stored_bits(values, image.options["bits_stored"], shift)
    if image.photometric == PALETTE:
        colors = apply_color_lut(values, image.header)[..., :3]
        return colors if colors.dtype == np.uint8 else np.rint(colors / 257).astype(np.uint8)
    if values.ndim == 3:
        return values
    group = _group(image.header, frame, "PixelValueTransformationSequence")
    if group.get("ModalityLUTSequence"):
        return apply_modality_lut(values, group)
    slope, intercept, _ = _rescaling(image.header, frame)
    return values if (slope, intercept) == (1, 0) else values * slope + intercept


def _unused_low_bits(image: Image) -> int:
    """Number of unused bits below a value: 0 in most files, more in old ones that store values in
    the high bits (HighBit).
    """
    stored = image.options.get("bits_stored")
    high = number(image.header, "HighBit")
    if stored is None or high is None or image.syntax.is_encapsulated:
        return 0
    shift = int(high) + 1 - stored
    if not 0 <= shift <= image.options["bits_allocated"] - stored:
        raise BadImage(f"its HighBit is {high:g}, which does not match BitsStored {stored}")
    return shift


def _stored_bits(values: np.ndarray, stored: int, shift: int) -> np.ndarray:
    """Extracts values of `stored` bits above `shift` unused bits, with sign extension."""
    above = 8 * values.itemsize - stored - shift
    return np.right_shift(np.left_shift(values, above), above + shift)


class _Rescaling(NamedTuple):
    """The linear map from stored values to the units of a modality."""

    slope: float
    intercept: float
    complete: bool
    """Whether the file has both, or neither."""


def _rescaling(header: "pydicom.Dataset", frame: int) -> _Rescaling:
    """The rescaling of a frame."""
    group = _group(header, frame, "PixelValueTransformationSequence")
    slope, intercept = number(group, "RescaleSlope"), number(group, "RescaleIntercept")
    if slope == 0:
        raise BadImage("its RescaleSlope is 0, which erases the image")
    complete = (slope is None) == (intercept is None)
    return _Rescaling(1 if slope is None else slope, intercept or 0, complete)


def _own_window(header: "pydicom.Dataset", frame: int) -> Window | None:
    """The first window in the header if it is linear, else None (DICOM PS3.3, C.11.2.1.2)."""
    group = _group(header, frame, "FrameVOILUTSequence")
    try:
        center, width = (number(group, name) for name in ("WindowCenter", "WindowWidth"))
    except BadImage:  # counts as missing
        return None
    function = group.get("VOILUTFunction") or "LINEAR"
    if center is None or width is None or function not in ("LINEAR", "LINEAR_EXACT"):
        return None
    # A LINEAR window extends from the center of its lowest value to the center of its highest.
    low, high = center - width / 2, center + width / 2 - (function == "LINEAR")
    return (low, high) if low < high else None


def _group(header: "pydicom.Dataset", frame: int, name: str) -> "pydicom.Dataset":
    """The data set with a frame's rescaling or window. Enhanced multi-frame files have groups per
    frame and shared groups (DICOM PS3.3, C.7.6.16); other files have only the header.
    """
    of_frame = (header.get(PER_FRAME) or [])[frame : frame + 1]
    of_all = (header.get(SHARED) or [])[:1]
    for group in (*of_frame, *of_all):
        if group.get(name):
            return group[name][0]
    return header
