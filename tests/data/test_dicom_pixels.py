"""Pixels of DICOM files, however they are stored: known ones, written by other encoders, and what
pydicom itself reads.
"""

import sys

import numpy as np
import pytest

from mae_jax.data import dicom_codecs
from mae_jax.data.dicom_pixels import read_values
from mae_jax.data.images import BadImage
from mae_jax.data.sources import dicom
from mae_jax.types import UserError
from tests.helpers.dicoms import (
    compressed,
    dataset,
    gray,
    images_of,
    pydicom,
    uid,
    windowed,
    write,
)

WINDOW = (0, 4000)
COLOR = gray(6, 8, 3, dtype=np.uint8, high=256)


def read(folder, **options):
    """The images of a folder, one or more."""
    return np.stack(images_of(dicom.make(str(folder), **options)))


def save(folder, values, encode, syntax, **fields):
    """Writes frames compressed by `encode`; stored in fewer bits if a field says so."""
    frames = values if values.ndim == 3 and values.shape[-1] != 3 else [values]
    data = dataset(values, PixelData=compressed([encode(frame) for frame in frames]), **fields)
    return write(folder / "1.dcm", data, syntax)


def lossless_jpeg(predictor=1, bits=None):
    """An encoder of libjpeg-turbo, another library than decodes it."""
    codecs = pytest.importorskip("imagecodecs")
    return lambda frame: codecs.jpeg8_encode(
        frame.view(f"u{frame.itemsize}"), lossless=True, predictor=predictor, bitspersample=bits
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize(
    ("syntax", "predictor"), [("JPEGLossless", 1), ("JPEGLossless", 6), ("JPEGLosslessSV1", 1)]
)
def test_lossless_jpeg(tmp_path, syntax, predictor, dtype):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = gray(2, 7, 9, dtype=dtype, low=low, high=high)
    save(tmp_path, values, lossless_jpeg(predictor, 8 * values.itemsize), getattr(uid, syntax))
    found = read(tmp_path, window=(low, high))
    np.testing.assert_array_equal(found[..., 0], windowed(values, low, high))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_lossless_jpeg_of_12_bits(tmp_path, dtype):
    values = gray(7, 9, dtype=np.int16, low=-2048, high=2047)
    values = values if dtype == np.int16 else (values + 2048).astype(dtype)
    twelve = lambda frame: lossless_jpeg(1, 12)(frame & np.array(4095, dtype))
    save(tmp_path, values, twelve, uid.JPEGLosslessSV1, BitsStored=12, HighBit=11)
    low = int(values.min())
    np.testing.assert_array_equal(
        read(tmp_path, window=(low, low + 4095))[0, ..., 0], windowed(values, low, low + 4095)
    )


@pytest.mark.parametrize("near", [0, 3])
@pytest.mark.parametrize("kind", ["gray", "signed", "color"])
def test_jpeg_ls(tmp_path, kind, near):
    codecs = pytest.importorskip("imagecodecs")
    values = {
        "gray": gray(7, 9),
        "signed": gray(7, 9, dtype=np.int16, low=-900, high=900),
        "color": COLOR,
    }[kind]
    encode = lambda frame: codecs.jpegls_encode(frame.view(f"u{frame.itemsize}"), level=near)
    if near and kind == "signed":  # near its middle, a signed value and its code are far apart
        values = np.abs(values)
    save(tmp_path, values, encode, uid.JPEGLSNearLossless if near else uid.JPEGLSLossless)
    window = (0, 255) if kind == "color" else (-1000, 4100)
    exact = windowed(values if kind == "color" else values[..., None], *window)
    assert np.abs(read(tmp_path, window=window)[0].astype(int) - exact).max() <= near


@pytest.mark.parametrize("kind", ["gray", "signed", "color", "deep color"])
@pytest.mark.parametrize("syntax", ["JPEG2000Lossless", "JPEG2000", "HTJ2KLossless", "HTJ2K"])
def test_jpeg_2000(tmp_path, syntax, kind):
    codecs = pytest.importorskip("imagecodecs")
    values = {
        "gray": gray(32, 40),
        "signed": gray(32, 40, dtype=np.int16, low=-900, high=900),
        "color": gray(32, 40, 3, dtype=np.uint8, high=256),
        "deep color": gray(32, 40, 3),
    }[kind]
    codec = codecs.htj2k_encode if "HT" in syntax else codecs.jpeg2k_encode
    raw = {} if "HT" in syntax else {"codecformat": "j2k"}
    photometric = "YBR_RCT" if values.ndim == 3 else "MONOCHROME2"
    encode = lambda frame: codec(frame, reversible=True, **raw)
    save(
        *(tmp_path, values, encode, getattr(uid, syntax)),
        PhotometricInterpretation=photometric,
    )
    window = (0, 255) if kind == "color" else (-1000, 4100)
    exact = windowed(values if values.ndim == 3 else values[..., None], *window)
    np.testing.assert_array_equal(read(tmp_path, window=window)[0], exact)


def test_jpeg_of_12_bits(tmp_path):
    codecs = pytest.importorskip("imagecodecs")
    ramp = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint16) * 100
    encode = lambda frame: codecs.jpeg8_encode(frame, level=100, bitspersample=12)
    save(tmp_path, ramp, encode, uid.JPEGExtended12Bit, BitsStored=12, HighBit=11)
    found = read(tmp_path, window=(0, 4095))[0, ..., 0].astype(int)
    assert np.abs(found - windowed(ramp, 0, 4095)).max() <= 1


def test_jpeg_ls_of_another_encoder():
    """What CharLS decodes is what DCMTK had encoded: both files come with pydicom."""
    root = dicom.Path(pydicom.__file__).parent / "data" / "test_files"
    values = pydicom.dcmread(root / "MR_small.dcm").pixel_array
    with dicom.opened(root / "MR_small_jpeg_ls_lossless.dcm") as image:
        dicom_codecs.register()
        np.testing.assert_array_equal(read_values(image, 0), values)


def test_without_imagecodecs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert not dicom_codecs.is_available(uid.JPEGLSLossless)
    decoder = pydicom.pixels.get_decoder(uid.JPEGLSLossless)
    dicom_codecs.register()
    monkeypatch.setattr(decoder, "_available", {})
    write(tmp_path / "a.dcm", dataset(gray(3, 4), PixelData=compressed([b"1"])), uid.JPEGLSLossless)
    message = "1 and the package that decompresses it is not installed: pip install imagecodecs"[2:]
    with pytest.raises(UserError, match=message):
        dicom.make(str(tmp_path), window=WINDOW)


@pytest.mark.parametrize("frames", [1, 3])
def test_deflated(tmp_path, frames):
    values = gray(*([frames] if frames > 1 else []), 5, 6)
    write(tmp_path / "1.dcm", dataset(values), uid.DeflatedExplicitVRLittleEndian)
    found = read(tmp_path, window=WINDOW)[..., 0]
    exact = pydicom.dcmread(tmp_path / "1.dcm").pixel_array.reshape(found.shape)
    np.testing.assert_array_equal(found, windowed(exact, *WINDOW))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_palettes(tmp_path, bits, signed):
    table = np.random.default_rng(0).integers(0, 2**bits, (3, 16)).astype(f"<u{bits // 8}")
    stored = gray(5, 6, dtype=np.int8 if signed else np.uint8, low=-4 if signed else 0, high=12)
    first = -4 if signed else 0
    fields = dict(PhotometricInterpretation="PALETTE COLOR")
    for color, entries in zip(("Red", "Green", "Blue"), table):
        fields[f"{color}PaletteColorLookupTableDescriptor"] = [16, first, bits]
        fields[f"{color}PaletteColorLookupTableData"] = entries.tobytes()
    data = dataset(stored, **fields)
    for color in ("Red", "Green", "Blue"):
        data[f"{color}PaletteColorLookupTableDescriptor"].VR = "SS" if signed else "US"
        data[f"{color}PaletteColorLookupTableData"].VR = "OW"
    write(tmp_path / "1.dcm", data)
    exact = table.T[stored.astype(int) - first]  # [H, W, 3]
    exact = exact if bits == 8 else np.rint(exact / 257).astype(np.uint8)
    np.testing.assert_array_equal(read(tmp_path)[0], exact)  # no window is needed


def test_a_palette_that_is_missing(tmp_path):
    fields = dict(PhotometricInterpretation="PALETTE COLOR")
    write(tmp_path / "1.dcm", dataset(gray(5, 6, dtype=np.uint8, high=9), **fields))
    with pytest.raises(UserError, match="1.dcm: its palette has no RedPaletteColorLookupTable"):
        dicom.make(str(tmp_path))


@pytest.mark.parametrize(("stored", "high"), [(12, 11), (12, 13), (12, 15), (10, 15)])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_are_not_of_the_value(tmp_path, stored, high, signed):
    """Overlays in the bits above the value, or whatever else, must not change it."""
    low = -(2 ** (stored - 1)) if signed else 0
    values = gray(5, 6, dtype=np.int32, low=low, high=low + 2**stored - 1)
    shift = high + 1 - stored
    mask = (2**stored - 1) << shift
    noise = gray(5, 6, dtype=np.int32, high=2**16, seed=1) & ~mask
    words = (
        (((values << shift) & mask) | noise).astype(np.uint16).view(np.int16 if signed else "u2")
    )
    write(tmp_path / "1.dcm", dataset(words, BitsStored=stored, HighBit=high))
    window = (low, low + 2**stored)
    np.testing.assert_array_equal(
        read(tmp_path, window=window)[0, ..., 0], windowed(values, *window)
    )


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "ExplicitVRBigEndian"])
def test_planes_of_color(tmp_path, planar, syntax):
    stored = np.ascontiguousarray(COLOR.transpose(2, 0, 1)) if planar else COLOR
    if syntax == "ExplicitVRBigEndian":  # bytes of words change places
        stored = stored.reshape(-1).view("u2").byteswap()
    fields = dict(PlanarConfiguration=planar, PixelData=stored.tobytes())
    write(tmp_path / "1.dcm", dataset(COLOR, **fields), getattr(uid, syntax))
    np.testing.assert_array_equal(read(tmp_path)[0], COLOR)


def test_run_lengths_of_color(tmp_path):
    data = dataset(COLOR)
    write(tmp_path / "1.dcm", data)
    data.compress(uid.RLELossless)
    data.save_as(tmp_path / "1.dcm")
    np.testing.assert_array_equal(read(tmp_path)[0], COLOR)


def test_luma_and_chroma(tmp_path):
    """As pydicom converts them; of YBR_FULL_422, two neighbors share their color."""
    full = pydicom.pixels.convert_color_space(COLOR, "RGB", "YBR_FULL")
    write(tmp_path / "1.dcm", dataset(full, PhotometricInterpretation="YBR_FULL"))
    shared = full.copy()
    shared[:, 1::2, 1:] = shared[:, ::2, 1:]
    pairs = np.concatenate([full[:, ::2, :1], full[:, 1::2, :1], shared[:, ::2, 1:]], axis=2)
    fields = dict(PhotometricInterpretation="YBR_FULL_422", PixelData=pairs.tobytes())
    write(tmp_path / "2.dcm", dataset(COLOR, **fields))
    exact = [pydicom.pixels.convert_color_space(x, "YBR_FULL", "RGB") for x in (full, shared)]
    np.testing.assert_array_equal(read(tmp_path), exact)


@pytest.mark.parametrize(("keyword", "dtype"), [("Float", np.float32), ("DoubleFloat", np.float64)])
def test_floats(tmp_path, keyword, dtype):
    values = np.random.default_rng(0).normal(size=(2, 5, 6)).astype(dtype)
    values[0, 0, :2] = np.nan, np.inf
    fields = dict.fromkeys(("PixelData", "BitsStored", "HighBit", "PixelRepresentation"))
    data = dataset(values, **fields)
    setattr(data, f"{keyword}PixelData", values.tobytes())
    write(tmp_path / "1.dcm", data)
    exact = windowed(np.nan_to_num(values, nan=-2, posinf=2), -2, 2)
    np.testing.assert_array_equal(read(tmp_path, window=(-2, 2))[..., 0], exact)


def test_bits(tmp_path):
    """A segmentation of three frames, whose pixels are bits and whose frames no whole bytes."""
    values = gray(3, 5, 5, dtype=np.uint8, high=2)
    packed = np.packbits(values.reshape(-1), bitorder="little").tobytes()
    fields = dict(BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)
    write(tmp_path / "1.dcm", dataset(values, **fields))
    np.testing.assert_array_equal(read(tmp_path, window=(0, 1))[..., 0], values * 255)


def test_a_cut_off_file_gives_its_first_frames(tmp_path):
    values = gray(3, 20, 20)
    path = write(tmp_path / "1.dcm", dataset(values))
    path.write_bytes(path.read_bytes()[:-700])
    source = dicom.make(str(tmp_path), window=WINDOW)
    np.testing.assert_array_equal(
        source.read([1])["image"][0][..., 0], windowed(values[1], *WINDOW)
    )
    with pytest.raises(BadImage, match="it is cut off after 1700 of 2400 bytes of pixels"):
        source.read([2])
