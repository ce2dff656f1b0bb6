"""TIFF, DICOM and NIfTI: files written here with their own libraries, pixels computed apart."""

import gc
import gzip
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import mae_jax
from mae_jax.data.files import find
from mae_jax.data.images import BadImage
from mae_jax.data.slices import Slices
from mae_jax.data.sources import dicom, nifti, tiff
from mae_jax.spec import build
from mae_jax.types import UserError

OPENED = Path("/proc/self/fd")
RNG = np.random.default_rng(0)


def windowed(values, low, high):
    """What a window should make of values, before rounding."""
    return np.clip((np.asarray(values, np.float64) - low) / (high - low), 0, 1) * 255


def assert_rounds(found, exact):
    """`found` is uint8, of that shape, and the numbers `exact` rounded."""
    assert found.dtype == np.uint8 and found.shape == exact.shape
    assert np.abs(found - exact).max() < 0.501


def images_of(source):
    """All images of a source."""
    return source.read(np.arange(source.num_examples))["image"]


def names_of(source):
    """All names of a source."""
    return [source.name(index) for index in range(source.num_examples)]


def place(folder, name):
    """A path below a folder, whose parents exist."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def save_tiff(folder, name, values, **options):
    """Writes a TIFF file; returns the values."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(place(folder, name), values, **{"photometric": "minisblack", **options})
    return values


def save_dicom(folder, name, values, **fields):
    """Writes a DICOM file of [H, W], [F, H, W] or color [H, W, 3]; returns the values."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, generate_uid(), "CT"
    color = values.ndim == 3 and values.shape[-1] == 3
    data.Rows, data.Columns = values.shape[-3:-1] if color else values.shape[-2:]
    data.SamplesPerPixel, data.BitsAllocated = 3 if color else 1, 8 * values.itemsize
    data.BitsStored, data.HighBit = data.BitsAllocated, data.BitsAllocated - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        data.PlanarConfiguration = 0
    if values.ndim == 3 and not color:
        data.NumberOfFrames = len(values)
    data.PixelData = values.tobytes()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in fields.items():
        setattr(data, keyword, value)
    data["PixelData"].VR = "OW"
    pydicom.dcmwrite(place(folder, name), data, enforce_file_format=True)
    return values


def save_nifti(folder, name, values, slope=None, inter=None):
    """Writes a NIfTI volume, scaled by its header if a slope is given; returns the values."""
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, place(folder, name))
    return values


def noise(*shape, dtype=np.uint16, high=4000):
    """Random values of a type."""
    return RNG.integers(0, high, shape).astype(dtype)


# TIFF


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_are_examples(tmp_path, compression):
    values = save_tiff(tmp_path, "b.tif", noise(3, 5, 7), compression=compression)
    other = save_tiff(tmp_path, "a.TIFF", noise(4, 6))
    source = tiff.make(str(tmp_path), window=(500, 3500))
    assert (source.num_examples, source.class_names) == (4, ())
    assert names_of(source) == ["a.TIFF", "b.tif[0]", "b.tif[1]", "b.tif[2]"]
    found = images_of(source)
    assert_rounds(found[0], windowed(other[..., None], 500, 3500))
    assert_rounds(np.stack(found[1:]), windowed(values[..., None], 500, 3500))


def test_pages_are_channels(tmp_path):
    values = save_tiff(tmp_path, "1.tif", noise(5, 6, 7))
    single = save_tiff(tmp_path, "2.tif", noise(4, 6))
    color = save_tiff(tmp_path, "3.tif", noise(2, 4, 6, 3), photometric="rgb")
    source = tiff.make(str(tmp_path), pages="channels", window=(0, 4000))
    assert names_of(source) == ["1.tif", "2.tif", "3.tif"]
    found = images_of(source)
    assert_rounds(found[0], windowed(np.moveaxis(values, 0, 2), 0, 4000))
    assert_rounds(found[1], windowed(single[..., None], 0, 4000))
    assert_rounds(found[2], windowed(np.concatenate(list(color), axis=2), 0, 4000))


@pytest.mark.parametrize("planar", ["separate", "contig"])
@pytest.mark.parametrize("channels", [2, 3, 5])
def test_channels_of_a_page(tmp_path, planar, channels):
    values = noise(6, 7, channels)
    stored = np.moveaxis(values, 2, 0) if planar == "separate" else values
    save_tiff(tmp_path, "1.tif", stored, planarconfig=planar)
    source = tiff.make(str(tmp_path), window=(0, 4000))
    assert source.num_examples == 1
    assert_rounds(images_of(source)[0], windowed(values, 0, 4000))


def test_bytes_need_no_window(tmp_path):
    values = noise(6, 7, 3, dtype=np.uint8, high=256)
    save_tiff(tmp_path, "1.tif", values, photometric="rgb")
    np.testing.assert_array_equal(images_of(tiff.make(str(tmp_path)))[0], values)
    stretched = images_of(tiff.make(str(tmp_path), window=(100, 200)))[0]
    assert_rounds(stretched, windowed(values, 100, 200))


@pytest.mark.parametrize("dtype", [np.uint32, np.int16, np.int32, np.float32, np.float64])
def test_every_depth(tmp_path, dtype):
    values = save_tiff(tmp_path, "1.tif", (noise(6, 7).astype(dtype) - dtype(1)))
    source = build(f"tiff({str(tmp_path)!r}, window=(10, 3000))", "data.sources")
    assert_rounds(images_of(source)[0], windowed(values[..., None], 10, 3000))


def test_white_may_be_the_lowest_value(tmp_path):
    values = save_tiff(tmp_path, "1.tif", noise(6, 7, 1), photometric="miniswhite")
    found = images_of(tiff.make(str(tmp_path), window=(0, 4000)))[0]
    assert_rounds(found, 255 - windowed(values, 0, 4000))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "1.tif holds uint16 values, from 3 to 900: give window=.low, high., the values that"),
        ({"pages": "slices"}, "tiff: pages 'slices' is not one of examples, channels"),
        ({"window": (9, 1)}, r"tiff: window \(9, 1\) should be \(low, high\)"),
    ],
)
def test_wrong_options_of_tiff(tmp_path, options, message):
    save_tiff(tmp_path, "1.tif", np.array([[3, 900], [4, 5]], np.uint16))
    with pytest.raises(UserError, match=message):
        tiff.make(str(tmp_path), **options)


def test_tiff_files_that_are_refused(tmp_path):
    colors = np.zeros((3, 256), np.uint16)
    values = noise(6, 7, dtype=np.uint8, high=256)
    save_tiff(tmp_path, "palette/1.tif", values, photometric="palette", colormap=colors)
    with pytest.raises(
        UserError, match="1.tif: it has a palette: convert it to RGB, or read it with"
    ):
        tiff.make(str(tmp_path / "palette"))
    for name, options in (("a", {"truncate": True}), ("b", {"truncate": True, "imagej": True})):
        save_tiff(tmp_path, f"{name}/1.tif", noise(5, 6, 7), **options)
        with pytest.raises(
            UserError, match="1.tif: it holds more pages than it lists, as very large"
        ):
            tiff.make(str(tmp_path / name), window=(0, 9))


def test_imagej_files_list_their_pages(tmp_path):
    save_tiff(tmp_path, "1.tif", noise(5, 6, 7), imagej=True)
    assert tiff.make(str(tmp_path), window=(0, 9)).num_examples == 5


def test_pages_of_different_sizes_or_types(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffWriter(tmp_path / "1.tif") as file:
        for values in (noise(4, 6, dtype=np.uint8), noise(2, 3, dtype=np.uint8), noise(4, 6)):
            file.write(values, photometric="minisblack")
    source = tiff.make(str(tmp_path))
    assert [image.shape for image in source.read([0, 1])["image"]] == [(4, 6, 1), (2, 3, 1)]
    with pytest.raises(BadImage, match="it holds uint16 values, which need a window"):
        source.read([2])
    source = tiff.make(str(tmp_path), pages="channels", window=(0, 9))
    message = r"its pages cannot be channels, their sizes differ: \[\(2, 3\), \(4, 6\)\]"
    with pytest.raises(BadImage, match=message):
        source.read([0])


def test_damaged_tiff(tmp_path):
    save_tiff(tmp_path, "1.tif", noise(64, 64), compression="zlib")
    path = tmp_path / "1.tif"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadImage) as error:
        tiff.make(str(tmp_path), window=(0, 9)).read([0])
    assert str(error.value) and "\n" not in str(error.value)
    for content in (b"", b"II", b"no image at all", data[:20]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot read .*1.tif: .*; repair or remove it"):
            tiff.make(str(tmp_path), window=(0, 9))


# DICOM


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_gray_values_are_rescaled(tmp_path, dtype, inverted):
    fields = dict(RescaleSlope="1.5", RescaleIntercept="-1024")
    if inverted:
        fields["PhotometricInterpretation"] = "MONOCHROME1"
    values = save_dicom(tmp_path, "scan.dcm", (noise(6, 7) - 300).astype(dtype), **fields)
    source = dicom.make(str(tmp_path), window=(-200, 2000))
    exact = windowed(values[..., None] * 1.5 - 1024, -200, 2000)
    assert_rounds(images_of(source)[0], 255 - exact if inverted else exact)


def test_a_table_may_stand_for_the_slope(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 10, 16], "US"
    table.LUTData = [100, 300, 200, 50]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    values = np.array([[9, 10, 11], [12, 13, 99]], np.uint16)
    save_dicom(tmp_path, "1.dcm", values, ModalityLUTSequence=pydicom.Sequence([table]))
    found = images_of(dicom.make(str(tmp_path), window=(0, 510)))[0]
    assert found.ravel().tolist() == [50, 50, 150, 100, 25, 25]


def test_frames_are_examples(tmp_path):
    values = save_dicom(tmp_path, "b/loop.dcm", noise(4, 6, 7))
    one = save_dicom(tmp_path, "a/1.2.840.17", noise(5, 5))  # no ending: known by its mark
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    source = build(f"dicom({str(tmp_path)!r}, window=(0, 4000))", "data.sources")
    assert source.class_names == ("a", "b")
    assert names_of(source) == ["a/1.2.840.17", *(f"b/loop.dcm[{k}]" for k in range(4))]
    found = images_of(source)
    assert_rounds(found[0], windowed(one[..., None], 0, 4000))
    assert_rounds(np.stack(found[1:]), windowed(values[..., None], 0, 4000))


@pytest.mark.parametrize(
    ("fields", "low", "high"),
    [
        (dict(WindowCenter="1000", WindowWidth="401"), 799.5, 1199.5),
        (dict(WindowCenter=["1000", "5"], WindowWidth=["401", "9"]), 799.5, 1199.5),
        (dict(WindowCenter="1000", WindowWidth="401", VOILUTFunction="LINEAR"), 799.5, 1199.5),
        (
            dict(WindowCenter="1000", WindowWidth="401", VOILUTFunction="LINEAR_EXACT"),
            799.5,
            1200.5,
        ),
    ],
)
def test_the_window_of_the_file(tmp_path, fields, low, high):
    """Between these, the standard's formulas of each function grow linearly from 0 to 255."""
    values = save_dicom(tmp_path, "1.dcm", noise(20, 30, high=2000), **fields)
    found = images_of(dicom.make(str(tmp_path)))[0]
    assert_rounds(found, windowed(values[..., None], low, high))
    given = images_of(dicom.make(str(tmp_path), window=(0, 1)))[0]
    assert_rounds(given, windowed(values[..., None], 0, 1))


def test_the_window_agrees_with_pydicom(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    fields = dict(WindowCenter="300.5", WindowWidth="777", RescaleSlope="2", RescaleIntercept="-9")
    save_dicom(tmp_path, "1.dcm", noise(20, 30, high=500), **fields)
    data = pydicom.dcmread(tmp_path / "1.dcm")
    rescaled = pydicom.pixels.apply_modality_lut(data.pixel_array, data)
    shown = pydicom.pixels.apply_windowing(rescaled, data)
    top = 2 * 65535 - 9  # pydicom spreads a window over all values that could be stored
    exact = (shown + 9) / (top + 9) * 255
    assert_rounds(images_of(dicom.make(str(tmp_path)))[0][..., 0], exact)


def test_groups_of_enhanced_files(tmp_path):
    """Each frame has a slope of its own; the window is that of all frames."""
    pydicom = pytest.importorskip("pydicom")

    def group(name, **fields):
        item, holder = pydicom.Dataset(), pydicom.Dataset()
        for keyword, value in fields.items():
            setattr(item, keyword, value)
        setattr(holder, name, pydicom.Sequence([item]))
        return holder

    slopes = [1, 2, 4]
    frames = [
        group("PixelValueTransformationSequence", RescaleSlope=slope, RescaleIntercept="-100")
        for slope in slopes
    ]
    shared = group("FrameVOILUTSequence", WindowCenter="1000", WindowWidth="1001")
    values = save_dicom(
        tmp_path,
        "1.dcm",
        noise(3, 6, 7, high=1000),
        PerFrameFunctionalGroupsSequence=pydicom.Sequence(frames),
        SharedFunctionalGroupsSequence=pydicom.Sequence([shared]),
    )
    rescaled = values * np.reshape(slopes, (3, 1, 1)) - 100.0
    exact = windowed(rescaled[..., None], 499.5, 1499.5)
    assert_rounds(np.stack(images_of(dicom.make(str(tmp_path)))), exact)


def test_color_stays_as_it_is(tmp_path):
    values = save_dicom(tmp_path, "1.dcm", noise(6, 8, 3, dtype=np.uint8, high=256))
    np.testing.assert_array_equal(images_of(dicom.make(str(tmp_path)))[0], values)
    stretched = images_of(dicom.make(str(tmp_path), window=(0, 100)))[0]
    assert_rounds(stretched, windowed(values, 0, 100))


def test_compressed_frames(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    values = save_dicom(tmp_path, "1.dcm", noise(3, 6, 7))
    data = pydicom.dcmread(tmp_path / "1.dcm")
    data.compress(pydicom.uid.RLELossless)
    data.save_as(tmp_path / "1.dcm")
    found = images_of(dicom.make(str(tmp_path), window=(0, 4000)))
    assert_rounds(np.stack(found), windowed(values[..., None], 0, 4000))


NO_WINDOW = (
    r"1.dcm has no linear window \(WindowCenter, WindowWidth\) of its own, and holds float64 "
    r"values, from 6 to 18: give window=\(low, high\)"
)
SCALED = dict(RescaleSlope="2", RescaleIntercept="0")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (SCALED, NO_WINDOW),
        (dict(SCALED, WindowCenter="3"), NO_WINDOW),
        (dict(SCALED, WindowCenter="", WindowWidth=""), NO_WINDOW),
        (dict(SCALED, WindowCenter="3", WindowWidth="9", VOILUTFunction="SIGMOID"), NO_WINDOW),
        (dict(SCALED, WindowCenter="3", WindowWidth="1"), NO_WINDOW),
        (
            dict(PhotometricInterpretation="CMYK"),
            "1.dcm: PhotometricInterpretation 'CMYK' is not supported: convert it to one of MONO",
        ),
    ],
)
def test_dicom_files_that_are_refused(tmp_path, fields, message):
    save_dicom(tmp_path, "1.dcm", np.array([[3, 9], [4, 5]], np.uint16), **fields)
    with pytest.raises(UserError, match=message) as error:
        dicom.make(str(tmp_path))
    assert "\n" not in str(error.value)


def test_compression_that_nothing_here_unpacks(tmp_path, monkeypatch):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import MPEG2MPML, JPEGLSLossless

    decoder = pydicom.pixels.get_decoder(JPEGLSLossless)
    monkeypatch.setattr(type(decoder), "is_available", False)
    save_dicom(tmp_path, "1.dcm", noise(6, 7))
    data = pydicom.dcmread(tmp_path / "1.dcm")
    data.PixelData = pydicom.encaps.encapsulate([b"1234"])
    data["PixelData"].is_undefined_length = True
    for syntax, message in (
        (
            JPEGLSLossless,
            r"1.dcm: it is compressed \(JPEG-LS Lossless .*\), and the package that decompresses",
        ),
        (MPEG2MPML, "cannot read .*1.dcm: it is compressed as MPEG2 .*; repair or remove it"),
    ):
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(tmp_path / "1.dcm")
        with pytest.raises(UserError, match=message):
            dicom.make(str(tmp_path), window=(0, 1))


def test_deep_color_needs_a_window(tmp_path):
    save_dicom(tmp_path, "1.dcm", noise(6, 7, 3))
    with pytest.raises(UserError, match="1.dcm holds uint16 values, from .*: give window="):
        dicom.make(str(tmp_path))


def test_dicom_without_an_image(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    save_dicom(tmp_path, "1.dcm", noise(6, 7))
    data = pydicom.dcmread(tmp_path / "1.dcm")
    del data.Rows, data.Columns, data.PixelData
    data.save_as(tmp_path / "1.dcm")
    with pytest.raises(UserError, match="cannot read .*1.dcm: it has no pixels .*: CT Image; rep"):
        dicom.make(str(tmp_path), window=(0, 1))


def test_damaged_dicom(tmp_path):
    save_dicom(tmp_path, "1.dcm", noise(60, 70))
    path = tmp_path / "1.dcm"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadImage) as error:
        dicom.make(str(tmp_path), window=(0, 1)).read([0])
    assert str(error.value) and "\n" not in str(error.value)
    for content in (b"", b"no image at all"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot read .*1.dcm: .*; repair or remove it"):
            dicom.make(str(tmp_path), window=(0, 1))


# NIfTI


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_slices_of_volumes(tmp_path, ending, axis):
    values = save_nifti(tmp_path, f"1{ending}", noise(4, 5, 6, dtype=np.int16))
    four = save_nifti(tmp_path, f"2{ending}", noise(3, 4, 5, 2, dtype=np.float32))
    source = build(f"nifti({str(tmp_path)!r}, window=(500, 3500), axis={axis})", "data.sources")
    first = values.shape[axis]
    assert source.num_examples == first + four.shape[axis]
    assert names_of(source)[first - 1 : first + 1] == [f"1{ending}[{first - 1}]", f"2{ending}[0]"]
    found = images_of(source)
    exact = windowed(np.moveaxis(values, axis, 0)[..., None], 500, 3500)
    assert_rounds(np.stack(found[:first]), exact)
    assert_rounds(np.stack(found[first:]), windowed(np.moveaxis(four, axis, 0), 500, 3500))


def test_the_scaling_of_the_header(tmp_path):
    save_nifti(tmp_path, "1.nii", np.zeros((4, 5, 2), np.int16), 0.5, -10)
    path = tmp_path / "1.nii"
    stored = noise(4, 5, 2, dtype=np.int16)
    path.write_bytes(path.read_bytes()[:352] + stored.tobytes(order="F"))
    found = images_of(nifti.make(str(tmp_path), window=(0, 1500)))
    exact = windowed(stored * 0.5 - 10, 0, 1500)
    assert_rounds(np.stack(found, axis=2)[..., 0], exact)


def test_a_volume_is_not_read_whole(tmp_path):
    """A volume of 32 GiB, all hole, gives its last slice."""
    nibabel = pytest.importorskip("nibabel")
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((1024, 1024, 2**15 - 1))
    header["vox_offset"] = 352
    with (tmp_path / "1.nii").open("wb") as file:
        header.write_to(file)
        file.truncate(352 + 1024 * 1024 * (2**15 - 1))
        file.seek(-1, 2)
        file.write(b"\x07")
    source = nifti.make(str(tmp_path), window=(0, 255))
    image = source.read([2**15 - 2])["image"][0]
    assert image.shape == (1024, 1024, 1) and image[-1, -1] == 7 and image.sum() == 7


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (
            np.arange(8, dtype=np.int16).reshape(2, 2, 2),
            {},
            "slice 1 of .*1.nii holds int16 values, from 1 to 7: give window=",
        ),
        (noise(2, 2), {"window": (0, 1)}, "no image in .*, only 1 arrays of rank 2 .*, e.g. 1.nii"),
        (noise(1, 2, 2, 2, 2), {"window": (0, 1)}, "only 1 arrays of rank 5 .*, e.g. 1.nii"),
        (
            noise(2, 2, 2, dtype=np.complex64),
            {"window": (0, 1)},
            "1.nii: it holds complex64 values",
        ),
        (noise(2, 2, 2), {"axis": 3, "window": (0, 1)}, "axis 3 is not supported: choose 0, 1, 2"),
        (noise(2, 2, 2), {"window": "brain"}, "nifti: window 'brain' should be"),
    ],
)
def test_volumes_that_are_refused(tmp_path, values, options, message):
    save_nifti(tmp_path, "1.nii", values)
    with pytest.raises(UserError, match=message):
        nifti.make(str(tmp_path), **options)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_damaged_nifti(tmp_path, ending):
    save_nifti(tmp_path, f"1{ending}", noise(20, 20, 5))
    path = tmp_path / f"1{ending}"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    source = nifti.make(str(tmp_path), window=(0, 1))
    assert source.read([0])["image"][0].shape == (20, 20, 1)
    with pytest.raises(BadImage) as error:
        source.read([4])
    assert str(error.value) and "\n" not in str(error.value)
    for content in (b"", b"no image at all"):
        path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
        with pytest.raises(UserError, match=f"cannot read .*1{ending}: .*; repair or remove it"):
            nifti.make(str(tmp_path), window=(0, 1))


# All of them

KINDS = {
    "tiff": (
        tiff,
        "tifffile",
        lambda folder, name: save_tiff(folder, f"{name}.tif", noise(3, 4, 5)),
    ),
    "dicom": (dicom, "pydicom", lambda folder, name: save_dicom(folder, name, noise(3, 4, 5))),
    "nifti": (
        nifti,
        "nibabel",
        lambda folder, name: save_nifti(folder, f"{name}.nii", noise(4, 5, 3)),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_classes_are_the_sub_folders(tmp_path, kind):
    module, _, save = KINDS[kind]
    for name in ("dog/2", "ant/b", "cat/x/1", "cat-fish/1", "dog/10"):
        save(tmp_path, name)
    (tmp_path / "empty").mkdir()
    source = module.make(str(tmp_path), window=(0, 9))
    assert source.class_names == ("ant", "cat", "cat-fish", "dog")
    assert source.read(np.arange(15))["label"] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 6
    assert source.read(np.array([14, 0]))["label"] == [3, 0]
    assert [source.name(i).split(".")[0].partition("[")[0] for i in (0, 3, 6, 9, 12)] == [
        *("ant/b", "cat/x/1", "cat-fish/1", "dog/10", "dog/2")
    ]
    save(tmp_path, "loose")
    flat = module.make(str(tmp_path), window=(0, 9))
    assert flat.class_names == () and flat.read(np.arange(3)).keys() == {"image"}
    assert len({source.digest, flat.digest}) == 2 and len(source.digest) == 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_threads_read_the_same_and_close_their_files(tmp_path, kind):
    module, _, save = KINDS[kind]
    for name in ("1", "2"):
        save(tmp_path, name)
    source = module.make(str(tmp_path), window=(0, 4000))
    gc.collect()  # files that other tests have left open
    expected, opened = images_of(source), OPENED.exists() and len(list(OPENED.iterdir()))
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: images_of(source), range(20)):
            np.testing.assert_array_equal(found, expected)
    assert opened == (OPENED.exists() and len(list(OPENED.iterdir())))


@pytest.mark.parametrize("kind", KINDS)
def test_the_digest_follows_names_and_counts(tmp_path, kind):
    module, _, save = KINDS[kind]
    save(tmp_path, "1")
    first = module.make(str(tmp_path), window=(0, 9))
    assert module.make(str(tmp_path), window=(0, 8)).digest == first.digest
    save(tmp_path, "2")
    assert module.make(str(tmp_path), window=(0, 9)).digest != first.digest


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_reader_is_named(tmp_path, monkeypatch, kind):
    module, package, _ = KINDS[kind]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as error:
        module.make(str(tmp_path))
    assert str(error.value).startswith(f"{kind} needs {package}, which is not installed: pip inst")


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_empty_folders(tmp_path, kind):
    module, package, _ = KINDS[kind]
    pytest.importorskip(package)
    with pytest.raises(UserError, match=f"{kind}: there is no folder '.*nothing'"):
        module.make(str(tmp_path / "nothing"), window=(0, 9))
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=f"{kind}: no files in .* that it reads: looked for .[dnt]"):
        module.make(str(tmp_path), window=(0, 9))


@pytest.mark.slow
def test_the_index_is_small(tmp_path):
    """16 bytes a file, whatever the number of its slices."""
    for i in range(4_000):
        (tmp_path / f"{i // 100:03}").mkdir(exist_ok=True)
        (tmp_path / f"{i // 100:03}" / f"{i:05}").touch()
    tracemalloc.start()
    files = find("test", str(tmp_path), lambda path: True, "all")
    source = Slices(files, lambda path: 100, lambda path, k: np.zeros((1, 1, 1)))
    gc.collect()
    # Other threads of the process allocate, too, and Python interns every path it takes apart.
    package = tracemalloc.Filter(True, f"{Path(mae_jax.__file__).parent}/*")
    traces = tracemalloc.take_snapshot().filter_traces([package]).statistics("filename")
    tracemalloc.stop()
    held = sum(trace.size for trace in traces)
    assert source.num_examples == 400_000
    assert source.name(399_999) == "039/03999[99]" and source.name(100) == "000/00001[0]"
    assert held < 4_000 * 16
