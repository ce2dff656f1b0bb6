"""DICOM folders as clinics have them: what is an image, what is none, and what is damaged."""

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data.images import BadImage
from mae_jax.data.sources import dicom
from mae_jax.data.subset import hold_out
from mae_jax.types import UserError
from tests.helpers.dicoms import (
    bare,
    compressed,
    dataset,
    gray,
    images_of,
    mislabeled,
    names_of,
    pydicom,
    uid,
    windowed,
    write,
)

WINDOW = (0, 4000)
OTHERS = {
    "sr": "BasicTextSRStorage",
    "plan": "RTPlanStorage",
    "structures": "RTStructureSetStorage",
    "state": "GrayscaleSoftcopyPresentationStateStorage",
    "key": "KeyObjectSelectionDocumentStorage",
    "ecg": "TwelveLeadECGWaveformStorage",
    "pdf": "EncapsulatedPDFStorage",
    "index": "MediaStorageDirectoryStorage",
    "spectrum": "MRSpectroscopyStorage",
    "registration": "SpatialRegistrationStorage",
}


def data_of(folder, **options):
    """`make_data` of a folder of DICOM files."""
    options = dict(batch_size=2, train_transform="", eval_transform="") | options
    return make_data(train=f"dicom({str(folder)!r}, window={WINDOW})", **options)


def test_what_is_no_image_is_left_out_and_counted(tmp_path):
    values = gray(5, 6)
    write(tmp_path / "image.dcm", dataset(values))
    for name, kind in OTHERS.items():
        write(tmp_path / f"{name}.dcm", dataset(None, SOPClassUID=getattr(uid, kind)))
    write(tmp_path / "sr2", dataset(None, SOPClassUID=uid.BasicTextSRStorage))
    private = "1.3.12.2.1107.5.9.1"
    write(tmp_path / "private.dcm", dataset(None, SOPClassUID=private))
    source = dicom.make(str(tmp_path), window=WINDOW)
    assert names_of(source) == ["image.dcm"] and not source.damaged
    np.testing.assert_array_equal(images_of(source)[0][..., 0], windowed(values, *WINDOW))
    (note,) = source.notes
    assert note.startswith("left out files without an image: 2 Basic Text SR, e.g. sr.dcm; 1 ")
    for kind in (*OTHERS.values(), "private"):
        name = private if kind == "private" else getattr(uid, kind).name.removesuffix(" Storage")
        assert f" {name}, e.g. " in note
    assert data_of(tmp_path).notes() == [f"config.data.train: {note}"]


def test_what_has_pixels_and_is_no_photograph_is_said(tmp_path):
    write(tmp_path / "a.dcm", dataset(gray(5, 6)))
    write(tmp_path / "b.dcm", dataset(gray(5, 6), SOPClassUID=uid.RTDoseStorage))
    source = dicom.make(str(tmp_path), window=WINDOW)
    said = "RT Dose with pixels, read as images: 1 file, e.g. "
    assert source.num_examples == 2 and source.notes == (f"{said}{tmp_path / 'b.dcm'}",)


def test_only_what_is_no_image(tmp_path):
    write(tmp_path / "plan.dcm", dataset(None, SOPClassUID=uid.RTPlanStorage))
    with pytest.raises(UserError, match="no image in .*, only 1 RT Plan, e.g. plan.dcm: give a"):
        dicom.make(str(tmp_path), window=WINDOW)


def test_what_is_no_image_makes_no_class_and_ends_none(tmp_path):
    for name in ("b/1.dcm", "c/1.dcm"):
        write(tmp_path / name, dataset(gray(4, 4)))
    before = dicom.make(str(tmp_path), window=WINDOW)
    for name in ("a/report.dcm", "report.dcm", "b/report.dcm"):
        write(tmp_path / name, dataset(None, SOPClassUID=uid.BasicTextSRStorage))
    source = dicom.make(str(tmp_path), window=WINDOW)
    assert before.class_names == source.class_names == ("b", "c")
    assert source.read(np.arange(2))["label"] == [0, 1]
    assert names_of(source) == ["b/1.dcm", "c/1.dcm"]
    (tmp_path / "report.dcm").unlink()
    assert dicom.make(str(tmp_path), window=WINDOW).empty_classes == ("a",)


DAMAGED = {
    "no pixels": (dict(PixelData=None), "no pixels .PixelData., as files of its kind have: CT Im"),
    "empty pixels": (dict(PixelData=b""), "it has no pixels"),
    "few pixels": (dict(PixelData=bytes(50)), "it has 50 bytes of pixels, and by its header 60"),
    "few frames": (dict(NumberOfFrames=3), "it has 60 bytes of pixels, and by its header 180"),
    "no rows": (dict(Rows=None), "it has no Rows"),
    "rows of zero": (dict(Rows=0), "Rows, Columns or BitsAllocated is below 1"),
    "no sign": (dict(PixelRepresentation=None), "it has no PixelRepresentation"),
    "no bits": (dict(BitsAllocated=None), "it has no BitsAllocated"),
    "samples": (dict(SamplesPerPixel=3), "SamplesPerPixel is 3, which does not match MONOCHROME"),
    "color": (dict(PhotometricInterpretation="RGB"), "SamplesPerPixel is 1, .* match RGB"),
    "kind of color": (
        dict(PhotometricInterpretation="HSV"),
        "PhotometricInterpretation 'HSV' is not",
    ),
    "flat": (dict(RescaleSlope=0, RescaleIntercept=1), "RescaleSlope is 0"),
    "high bit": (dict(BitsStored=12, HighBit=3), "its HighBit is 3, which does not match"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_named_at_the_start_or_skipped(tmp_path, case):
    fields, message = DAMAGED[case]
    values = gray(5, 6)
    for name in ("a", "c"):
        write(tmp_path / f"{name}.dcm", dataset(values))
    write(tmp_path / "b.dcm", dataset(values, **fields))
    with pytest.raises(
        UserError, match=rf"data.train: cannot read 1 of the files, b.dcm: .*{message}"
    ):
        data_of(tmp_path)
    data = data_of(tmp_path, on_error="skip", eval_batch_size=3)
    assert any(
        note.startswith("config.data.train: cannot read 1, e.g. b.dcm") for note in data.notes()
    )
    (batch,) = data.eval("train")
    assert batch["valid"].tolist() == [True, False, True]
    np.testing.assert_array_equal(batch["image"][0, ..., 0], windowed(values, *WINDOW))


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html>" * 20, b"PK\x03\x04" + bytes(300), b"a"]
)
def test_other_files_named_like_dicom(tmp_path, content):
    write(tmp_path / "a.dcm", dataset(gray(5, 6)))
    (tmp_path / "b.dcm").write_bytes(content)
    (tmp_path / "notes").write_bytes(content)  # not named so, and none: not looked at
    source = dicom.make(str(tmp_path), window=WINDOW)
    assert names_of(source) == ["a.dcm", "b.dcm"]
    start = f"it starts with {content[:16]!r}" if content else "it is empty"
    assert source.damaged == [f"b.dcm: it is not a DICOM file: {start}"]
    with pytest.raises(BadImage, match="it is not a DICOM file"):
        source.read([1])


def test_a_data_set_that_does_not_say_what_it_is(tmp_path):
    write(tmp_path / "a.dcm", dataset(gray(5, 6)))
    bare(tmp_path / "b", dataset(None, SOPClassUID=None))
    (damaged,) = dicom.make(str(tmp_path), window=WINDOW).damaged
    assert damaged == "b: it has no pixels and no SOPClassUID"


def test_malformed_numbers(tmp_path):
    path = write(tmp_path / "a.dcm", dataset(gray(5, 6), RescaleSlope="1.5", RescaleIntercept="-7"))
    path.write_bytes(path.read_bytes().replace(b"1.5 ", b"abc "))
    write(tmp_path / "b.dcm", dataset(gray(5, 6)))
    (damaged,) = dicom.make(str(tmp_path), window=WINDOW).damaged
    assert damaged.startswith("a.dcm: its RescaleSlope is not a number (")


@pytest.mark.parametrize(
    ("fields", "slope", "intercept", "note"),
    [
        (dict(RescaleSlope="", RescaleIntercept=""), 1, 0, False),
        (dict(RescaleSlope="", RescaleIntercept="-100"), 1, -100, True),
        (dict(RescaleIntercept="-100"), 1, -100, True),
        (dict(RescaleSlope="2", RescaleIntercept=""), 2, 0, True),
        (dict(WindowCenter="", WindowWidth="", NumberOfFrames=""), 1, 0, False),
    ],
)
def test_empty_numbers(tmp_path, fields, slope, intercept, note):
    values = gray(5, 6)
    write(tmp_path / "a.dcm", dataset(values, **fields))
    source = dicom.make(str(tmp_path), window=WINDOW)
    exact = windowed(values * float(slope) + intercept, *WINDOW)
    np.testing.assert_array_equal(images_of(source)[0][..., 0], exact)
    said = "RescaleSlope or RescaleIntercept without the other, read as 1 or as 0: 1 file, e.g. "
    assert source.notes == ((f"{said}{tmp_path / 'a.dcm'}",) if note else ())


def test_a_missing_photometric_interpretation_is_said(tmp_path):
    values = gray(5, 6)
    fields = dict(PhotometricInterpretation=None)
    write(tmp_path / "a.dcm", dataset(values, **fields))
    write(tmp_path / "b.dcm", dataset(gray(5, 6, 3, dtype=np.uint8, high=256), **fields))
    source = dicom.make(str(tmp_path), window=WINDOW)
    np.testing.assert_array_equal(source.read([0])["image"][0][..., 0], windowed(values, *WINDOW))
    assert "no PhotometricInterpretation, read as MONOCHROME2: 1 file" in source.notes[-1]
    assert source.damaged[0].startswith("b.dcm: PhotometricInterpretation None")


@pytest.mark.parametrize("frames", [None, ""])
def test_frames_that_the_header_does_not_count(tmp_path, frames):
    values = gray(3, 5, 7, dtype=np.uint8, high=255)
    write(tmp_path / "a.dcm", dataset(values, NumberOfFrames=frames))
    write(tmp_path / "b.dcm", dataset(values[0]))
    source = dicom.make(str(tmp_path), window=(0, 255))
    assert names_of(source) == ["a.dcm[0]", "a.dcm[1]", "a.dcm[2]", "b.dcm"]
    np.testing.assert_array_equal(np.stack(images_of(source)[:3])[..., 0], values)
    assert "no NumberOfFrames, inferred from the size of the pixels: 1 file" in source.notes[0]


@pytest.mark.parametrize(
    "name", ["IM0001", "scan.ima", "scan.img", "I.001", "1.2.840.113", "a.dcm"]
)
@pytest.mark.parametrize("form", ["implicit", "explicit", "big", "whole"])
def test_files_without_preamble_and_under_any_name(tmp_path, name, form):
    values = gray(5, 6)
    data = dataset(values if form != "big" else values.byteswap(), ImageType="ORIGINAL")
    if form == "whole":
        write(tmp_path / name, data)
    else:
        bare(tmp_path / name, data, implicit=form == "implicit", little=form != "big")
    (tmp_path / "notes.img").write_bytes(bytes(1000))
    source = dicom.make(str(tmp_path), window=WINDOW)
    assert names_of(source) == [name]
    np.testing.assert_array_equal(images_of(source)[0][..., 0], windowed(values, *WINDOW))


@pytest.mark.parametrize("implicit", [False, True])
def test_pixels_stored_in_another_way_than_the_header_says(tmp_path, implicit):
    values = gray(5, 6)
    said = uid.ExplicitVRLittleEndian if implicit else uid.ImplicitVRLittleEndian
    mislabeled(tmp_path / "a.dcm", dataset(values), said, implicit=implicit)
    source = dicom.make(str(tmp_path), window=WINDOW)
    np.testing.assert_array_equal(images_of(source)[0][..., 0], windowed(values, *WINDOW))


def test_compressed_pixels_that_are_not_and_the_reverse(tmp_path):
    data = dataset(gray(5, 6))
    write(tmp_path / "c.dcm", data)
    mislabeled(tmp_path / "a.dcm", data, uid.RLELossless)
    data.compress(uid.RLELossless)
    mislabeled(tmp_path / "b.dcm", data, uid.ExplicitVRLittleEndian)
    assert dicom.make(str(tmp_path), window=WINDOW).damaged == [
        "a.dcm: its pixels should be compressed (RLE Lossless), and are not",
        "b.dcm: its pixels are compressed, but its TransferSyntaxUID does not say how",
    ]


def test_the_test_files_of_pydicom(caplog, capfd):
    """165 DICOM files of clinics, scanners and bug reports, many of them damaged on purpose."""
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING):
        warnings.simplefilter("default")
        source = dicom.make(str(root), window=(-1000, 2000))
        failed = set()
        for i in range(source.num_examples):
            try:
                (image,) = source.read([i])["image"]
            except BadImage as error:
                failed.add(source.name(i))
                assert "\n" not in str(error)
            else:
                assert image.dtype == np.uint8 and image.shape[2] in (1, 3)
    damaged = {line.partition(":")[0] for line in source.damaged}
    late = {"JPEG2000-embedded-sequence-delimiter.dcm", "MR_truncated.dcm"}
    assert failed == damaged | late
    assert sum("TINY_ALPHA" in name for name in damaged) == 50 and len(damaged) == 58
    notes = "\n".join(source.notes)
    assert "2 RT Plan, e.g. rtplan.dcm" in notes and "6 Media Storage Directory" in notes
    assert not caplog.records and not caught and capfd.readouterr().err == ""


def test_one_line_about_a_file_that_is_cut_off(tmp_path, caplog):
    frame = b"\xff\xd8\xff\xf7" + bytes(60)
    data = dataset(gray(5, 6), PixelData=compressed([frame]))
    write(tmp_path / "a.dcm", data, uid.JPEGLSLossless)
    with pytest.raises(BadImage) as error:
        dicom.make(str(tmp_path), window=WINDOW).read([0])
    assert "\n" not in str(error.value) and not caplog.records


def test_parts_keep_the_groups(tmp_path):
    for name in ("a.dcm", "b.dcm"):
        write(tmp_path / name, dataset(gray(6, 4, 4)))
    parts = hold_out(dicom.make(str(tmp_path), window=WINDOW), 0.5)
    files = [{part.group(i) for i in range(part.num_examples)} for part in parts]
    assert sorted(files, key=min) == [{"a.dcm"}, {"b.dcm"}]  # all six slices of each
    assert [part.num_examples for part in parts] == [6, 6]
