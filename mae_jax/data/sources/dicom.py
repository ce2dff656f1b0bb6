"""A folder of DICOM files, of one frame or of many (pydicom)."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mae_jax.data import dicom_codecs
from mae_jax.data.dicom_header import (
    COLOR,
    EXTENSIONS,
    GRAY,
    PER_FRAME,
    Image,
    is_dicom,
    kind_of,
    opened,
)
from mae_jax.data.dicom_numbers import number
from mae_jax.data.dicom_pixels import (
    check_decoder,
    group_of,
    read_values,
    rescaling,
    unused_low_bits,
)
from mae_jax.data.files import find
from mae_jax.data.images import BadImage, Window, check_window
from mae_jax.data.slices import Remarks, Slices, no_window, require, to_bytes

if TYPE_CHECKING:
    import pydicom

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
    files, remarks = find("dicom", path, is_dicom, looked_for), Remarks()
    count = partial(_count, window=window, remarks=remarks)
    source = Slices(files, count, partial(_load, window=window), remarks)
    source.reading = READING
    return source


def _count(path: Path, *, window: Window | None, remarks: Remarks) -> int:
    """Checks the header of a file, and returns its number of frames."""
    with opened(path) as image:
        check_decoder(image)
        unused_low_bits(image)  # raises if HighBit is invalid
        kind = kind_of(image.header)
        if kind and "Image" not in kind:
            remarks.add(f"{kind} with pixels, read as images", str(path))
        frames = range(image.frames if image.header.get(PER_FRAME) else 1)
        if not all([rescaling(image.header, frame).complete for frame in frames]):
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
        raise no_window(str(path), read_values(image, 0))
    for frame in frames if image.photometric in GRAY else ():
        if _own_window(image.header, frame) is None:
            what = f"{path} has no linear window (WindowCenter, WindowWidth) of its own, and"
            raise no_window(what, read_values(image, frame))


def _load(path: Path, frame: int, *, window: Window | None) -> np.ndarray:
    """One frame: [H, W, C] uint8."""
    with opened(path) as image:
        values = read_values(image, frame)
    if image.photometric not in GRAY:
        return to_bytes(values, window)
    pixels = to_bytes(values, window or _own_window(image.header, frame))[:, :, None]
    return 255 - pixels if image.photometric == "MONOCHROME1" else pixels


def _own_window(header: "pydicom.Dataset", frame: int) -> Window | None:
    """The first window in the header if it is linear, else None (DICOM PS3.3, C.11.2.1.2)."""
    group = group_of(header, frame, "FrameVOILUTSequence")
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
