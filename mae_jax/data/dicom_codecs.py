"""A pydicom decoder plugin that decodes compressed DICOM images with imagecodecs (pydicom's
guides/decoding/decoder_plugins).

Adds lossless JPEG, 12-bit JPEG, JPEG-LS, JPEG 2000 and high-throughput JPEG 2000. pydicom and
Pillow decode RLE and 8-bit JPEG themselves; where Pillow supports JPEG 2000 (one channel, or 8
bits), it is tried first.
"""

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

LABEL = "imagecodecs"
"""Name of the plugin."""

CODECS = {
    "1.2.840.10008.1.2.4.51": "jpeg8",  # JPEG Extended
    "1.2.840.10008.1.2.4.57": "jpegsof3",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70": "jpegsof3",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.81": "jpegls",  # near-lossless
    "1.2.840.10008.1.2.4.90": "jpeg2k",  # lossless
    "1.2.840.10008.1.2.4.91": "jpeg2k",
    "1.2.840.10008.1.2.4.201": "htj2k",  # lossless
    "1.2.840.10008.1.2.4.202": "htj2k",  # lossless, by resolution
    "1.2.840.10008.1.2.4.203": "htj2k",
}
"""Transfer syntax -> codec of imagecodecs."""

DECODER_DEPENDENCIES = dict.fromkeys(CODECS, ("numpy", "imagecodecs"))
"""Part of pydicom's interface: packages that each decoder needs."""


def is_available(uid: str) -> bool:
    """Part of pydicom's interface: whether this plugin can decode a transfer syntax."""
    try:
        import imagecodecs
    except ImportError:
        return False
    # imagecodecs defines its codecs lazily, in a module __getattr__.
    return bool(getattr(imagecodecs, CODECS[uid].upper()).available)


def decode_frame(data: bytes, runner: "DecodeRunner") -> bytes:
    """Part of pydicom's interface: the pixels of one frame, row by row, channels last.

    Args:
        data: the compressed frame.
        runner: options from the header; updated to describe the decoded frame.
    """
    import imagecodecs

    codec, options = CODECS[runner.transfer_syntax], {}
    if codec == "jpeg8" and "YBR" in runner.photometric_interpretation:
        options = {"colorspace": "ycbcr", "outcolorspace": "ycbcr"}  # pydicom converts to RGB
    values = getattr(imagecodecs, f"{codec}_decode")(data, **options)
    runner.set_option("bits_allocated", 8 * values.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    if codec in ("jpeg2k", "htj2k") and runner.photometric_interpretation in ("YBR_ICT", "YBR_RCT"):
        runner.set_option("photometric_interpretation", "RGB")  # undone by the codec
    return values.tobytes()


@functools.cache
def register() -> None:
    """Adds the plugin to pydicom's decoders, once."""
    from pydicom.pixels import get_decoder

    for uid in CODECS:
        get_decoder(uid).add_plugin(LABEL, (__name__, decode_frame.__name__))
