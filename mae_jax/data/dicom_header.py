"""Reads DICOM headers: the kind of a file, and position, layout and type of its pixels.

Many files in clinical archives violate the standard. A file is read if that needs no guess about
pixel values; otherwise it is refused, and the message names the element.
"""

import contextlib
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from mae_jax.data.dicom_numbers import integer
from mae_jax.data.images import BadImage
from mae_jax.data.slices import NoImage

if TYPE_CHECKING:
    import pydicom
    from pydicom.uid import UID

EXTENSIONS = (".dcm", ".dicom")
GRAY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

PER_FRAME, SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
_TAGS = (
    *("SOPClassUID", "Modality", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PlanarConfiguration", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored"),
    *("HighBit", "PixelRepresentation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelPresentation"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", PER_FRAME, SHARED),
    *(
        f"{kind}{color}PaletteColorLookupTable{part}"
        for color in ("Red", "Green", "Blue")
        for kind, part in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
    ),
    # Which volume a slice belongs to, and where it is.
    *("SeriesInstanceUID", "SOPInstanceUID", "ImageType", "ImagePositionPatient", "PixelSpacing"),
    *("ImageOrientationPatient", "GridFrameOffsetVector", "EchoTime", "DiffusionBValue"),
    *("TemporalPositionIdentifier", "AcquisitionNumber"),
)
# Elements of the group 7FE0.
_PIXELS = {8: "FloatPixelData", 9: "DoubleFloatPixelData", 16: "PixelData"}
# Kinds that always have pixels, besides those with 'Image' in their name.
_WITH_PIXELS = ("Segmentation", "Parametric Map")
_LONG = (b"OB", b"OW", b"OF", b"OD", b"UN")
# Group -> elements that a data set may start with.
_FIRST = {2: range(0x20), 8: {0, 1, 5, 6, 8, 0x12, 0x13, 0x14, 0x16, 0x18, 0x20, 0x60}}
_UNKNOWN_LENGTH = 0xFFFFFFFF


class _Element(NamedTuple):
    """The element of a header that holds the pixels."""

    keyword: str
    vr: str
    length: int
    syntax: "UID"


class Image(NamedTuple):
    """An open DICOM image."""

    header: "pydicom.Dataset"
    syntax: "UID"
    """How the pixels are stored."""
    pixels: BinaryIO
    """File positioned at the start of the pixels."""
    options: dict[str, Any]
    """Size and type of the image, as options of pydicom's decoders."""

    @property
    def frames(self) -> int:
        """Number of frames in the file."""
        return self.options["number_of_frames"]

    @property
    def photometric(self) -> str:
        """One of `GRAY`, `COLOR` or `PALETTE`."""
        return self.options["photometric_interpretation"]


def looks_like_dicom(path: Path) -> bool:
    """Whether a file starts like DICOM: with DICM after 128 bytes or, in old files, directly with
    the first element of a header. True for a file that cannot be opened.
    """
    try:
        with path.open("rb") as file:
            return _starts_dicom(file.read(132))
    except OSError:
        return True


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its name or its start; an index (DICOMDIR) is not."""
    if path.name == "DICOMDIR" or not path.is_file():
        return False
    return path.name.lower().endswith(EXTENSIONS) or looks_like_dicom(path)


def _starts_dicom(head: bytes) -> bool:
    if head[128:] == b"DICM":
        return True
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        length = int.from_bytes(head[6:8] if explicit else head[4:8], order)
        if len(head) > 8 and element in _FIRST.get(group, ()) and length <= 128:
            return True
    return False


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image]:
    """Opens an image.

    Raises:
        NoImage: the file is of a kind without an image, e.g. a report; names the kind.
        BadImage: the file is damaged, or an element is missing or invalid; names the element.
    """
    with path.open("rb") as file:
        head = file.read(132)
        if not _starts_dicom(head):
            start = f"it starts with {head[:16]!r}" if head else "it is empty"
            raise BadImage(f"it is not a DICOM file: {start}")
        file.seek(0)
        yield _read(file)


def _read(file: BinaryIO) -> Image:
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
    declared = header.file_meta.get("TransferSyntaxUID")
    if declared == DeflatedExplicitVRLittleEndian:
        file.seek(0)
        keywords = [*_TAGS, *_PIXELS.values()]
        header = pydicom.dcmread(file, specific_tags=keywords, force=True)
        file, element = _inflated(header)
    else:
        element = _find_pixels(file, declared)
    if element is None or not element.length:
        raise _without_pixels(header)
    return Image(header, element.syntax, file, _options(header, element))


def _inflated(header: "pydicom.Dataset") -> tuple[io.BytesIO, _Element | None]:
    """The pixels, in memory, of a data set that is compressed as a whole (deflated)."""
    from pydicom.uid import ExplicitVRLittleEndian

    keyword = next((name for name in _PIXELS.values() if name in header), None)
    if keyword is None:
        return io.BytesIO(), None
    value, vr = header[keyword].value or b"", header[keyword].VR
    return io.BytesIO(value), _Element(keyword, vr, len(value), ExplicitVRLittleEndian)


def _find_pixels(file: BinaryIO, declared: "UID | None") -> _Element | None:
    """The pixel element, if there is one. Moves the file from the element's tag to its value.

    The layout of uncompressed pixels follows from the file itself; the header may be wrong.
    """
    from pydicom import uid

    start, data = file.tell(), file.read(12)
    order = "big" if data[:2] == b"\x7f\xe0" else "little"
    group, element = (int.from_bytes(data[i : i + 2], order) for i in (0, 2))
    if group != 0x7FE0 or element not in _PIXELS or len(data) < 8:
        return None
    explicit = data[4:6] in _LONG
    vr = data[4:6].decode() if explicit else "OW"
    length = int.from_bytes(data[8:12] if explicit else data[4:8], order)
    file.seek(start + (12 if explicit else 8))
    if length == _UNKNOWN_LENGTH:
        if declared is None or not declared.is_encapsulated:
            raise BadImage("its pixels are compressed, but its TransferSyntaxUID does not say how")
        return _Element(_PIXELS[element], vr, length, declared)
    if declared is not None and declared.is_encapsulated:
        raise BadImage(f"its pixels should be compressed ({declared.name}), and are not")
    if order == "big":
        return _Element(_PIXELS[element], vr, length, uid.ExplicitVRBigEndian)
    syntax = uid.ExplicitVRLittleEndian if explicit else uid.ImplicitVRLittleEndian
    return _Element(_PIXELS[element], vr, length, syntax)


def kind_of(header: "pydicom.Dataset") -> str:
    """Kind of a file as the standard names it, e.g. 'RT Plan'; empty if the header has none."""
    from pydicom.uid import UID

    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    return UID(kind).name.removesuffix(" Storage") if kind else ""


def _without_pixels(header: "pydicom.Dataset") -> Exception:
    """The error for a file without pixels: `NoImage` if its kind has none, else `BadImage`."""
    kind = kind_of(header)
    if not kind:
        return BadImage("it has no pixels and no SOPClassUID")
    if "Image" in kind or kind in _WITH_PIXELS:
        return BadImage(f"it has no pixels (PixelData), as files of its kind have: {kind}")
    return NoImage(kind)


def _options(header: "pydicom.Dataset", element: _Element) -> dict[str, Any]:
    """Checked size and type of an image, as options of pydicom's decoders."""
    photometric = header.get("PhotometricInterpretation")
    samples = integer(header, "SamplesPerPixel", 1 if photometric in (*GRAY, PALETTE) else None)
    if not photometric and samples == 1:
        photometric = "MONOCHROME2"
    if photometric not in (*GRAY, PALETTE, *COLOR):
        raise BadImage(
            f"PhotometricInterpretation {photometric!r} is not supported: "
            f"convert it to one of {', '.join((*GRAY, PALETTE, *COLOR))}"
        )
    if samples != (3 if photometric in COLOR else 1):
        raise BadImage(f"its SamplesPerPixel is {samples}, which does not match {photometric}")
    if photometric == PALETTE and "RedPaletteColorLookupTableDescriptor" not in header:
        raise BadImage("its palette has no RedPaletteColorLookupTableDescriptor")
    options = {
        "pixel_keyword": element.keyword,
        "pixel_vr": element.vr,
        "samples_per_pixel": samples,
        "photometric_interpretation": photometric,
        "rows": integer(header, "Rows"),
        "columns": integer(header, "Columns"),
        "bits_allocated": integer(header, "BitsAllocated"),
    }
    if element.keyword == "PixelData":
        options["bits_stored"] = integer(header, "BitsStored", options["bits_allocated"])
        options["pixel_representation"] = integer(header, "PixelRepresentation")
    if samples == 3:
        compressed = 0 if element.syntax.is_encapsulated else None
        options["planar_configuration"] = integer(header, "PlanarConfiguration", compressed)
    if "ExtendedOffsetTable" in header and "ExtendedOffsetTableLengths" in header:
        offsets = header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths
        options["extended_offsets"] = offsets
    if min(options["rows"], options["columns"], options["bits_allocated"]) < 1:
        raise BadImage("its Rows, Columns or BitsAllocated is below 1")
    options["number_of_frames"] = _frames(header, options, element)
    return options


def _frames(header: "pydicom.Dataset", options: dict[str, Any], element: _Element) -> int:
    """Number of frames; inferred from the size of the pixels if the header has none."""
    declared = integer(header, "NumberOfFrames", 0)
    if declared < 0:
        raise BadImage(f"its NumberOfFrames is {declared}")
    if element.syntax.is_encapsulated:
        return declared or 1
    size = frame_bytes(options)
    needed = math.ceil(size * max(declared, 1))
    if element.length < needed:
        raise BadImage(f"it has {element.length} bytes of pixels, and by its header {needed}")
    count = int(element.length // size)
    exact = size > 1 and element.length - count * size <= 1  # padded to an even number of bytes
    return declared or (count if exact else 1)


def frame_bytes(options: dict[str, Any]) -> float:
    """Bytes of an uncompressed frame; fractional for pixels of one bit."""
    pixels = options["rows"] * options["columns"] * options["samples_per_pixel"]
    if options["photometric_interpretation"] == "YBR_FULL_422":
        pixels = pixels // 3 * 2  # two pixels share their color
    return pixels * options["bits_allocated"] / 8


def check_whole(image: Image, frame: int) -> None:
    """Raises BadImage if the file ends within an uncompressed frame."""
    start = image.pixels.tell()
    size = image.pixels.seek(0, os.SEEK_END)
    image.pixels.seek(start)
    needed = math.ceil(frame_bytes(image.options) * (frame + 1))
    if not image.syntax.is_encapsulated and start + needed > size:
        raise BadImage(f"it is cut off after {size - start} of {needed} bytes of pixels")
