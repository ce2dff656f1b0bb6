"""Reads the pixel values of opened DICOM images, in the units of their modality (pydicom)."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mae_jax.data.dicom_header import PALETTE, PER_FRAME, SHARED, Image, check_whole
from mae_jax.data.dicom_numbers import number
from mae_jax.data.images import BadImage

if TYPE_CHECKING:
    import pydicom


def check_decoder(image: Image) -> None:
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


def read_values(image: Image, frame: int) -> np.ndarray:
    """Gray values [H, W] in rescaled units, or RGB [H, W, 3]."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder

    check_whole(image, frame)
    shift = unused_low_bits(image)
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
    group = group_of(image.header, frame, "PixelValueTransformationSequence")
    if group.get("ModalityLUTSequence"):
        return apply_modality_lut(values, group)
    slope, intercept, _ = rescaling(image.header, frame)
    return values if (slope, intercept) == (1, 0) else values * slope + intercept


def unused_low_bits(image: Image) -> int:
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


class Rescaling(NamedTuple):
    """The linear map from stored values to the units of a modality."""

    slope: float
    intercept: float
    complete: bool
    """Whether the file has both, or neither."""


def rescaling(header: "pydicom.Dataset", frame: int) -> Rescaling:
    """The rescaling of a frame."""
    group = group_of(header, frame, "PixelValueTransformationSequence")
    slope, intercept = number(group, "RescaleSlope"), number(group, "RescaleIntercept")
    if slope == 0:
        raise BadImage("its RescaleSlope is 0, which erases the image")
    complete = (slope is None) == (intercept is None)
    return Rescaling(1 if slope is None else slope, intercept or 0, complete)


def group_of(header: "pydicom.Dataset", frame: int, name: str) -> "pydicom.Dataset":
    """The data set with a frame's rescaling or window. Enhanced multi-frame files have groups per
    frame and shared groups (DICOM PS3.3, C.7.6.16); other files have only the header.
    """
    of_frame = (header.get(PER_FRAME) or [])[frame : frame + 1]
    of_all = (header.get(SHARED) or [])[:1]
    for group in (*of_frame, *of_all):
        if group.get(name):
            return group[name][0]
    return header
