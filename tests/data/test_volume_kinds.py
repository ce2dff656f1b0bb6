"""NIfTI and TIFF folders as people have them: what is an image, what is none, what is damaged."""

import gzip
import struct

import numpy as np
import pytest

from mae_jax.data.images import BadImage
from mae_jax.data.sources import nifti, tiff
from mae_jax.types import UserError

WINDOW = (0, 255)
RNG = np.random.default_rng(0)
VALUES = RNG.integers(0, 256, (4, 5, 6)).astype(np.int16)
RGB = [("R", "u1"), ("G", "u1"), ("B", "u1")]


def save(path, values, kind="Nifti1Image", intent=None):
    """Writes a volume with nibabel."""
    nibabel = pytest.importorskip("nibabel")
    image = getattr(nibabel, kind)(values, np.eye(4))
    if intent:
        image.header.set_intent(intent)
    nibabel.save(image, path)


def patch(path, **fields):
    """Writes numbers into the header of a NIfTI-1 file: offset=(format, values)."""
    data = bytearray(path.read_bytes())
    for place, (form, *values) in fields.items():
        struct.pack_into(form, data, int(place[1:]), *values)
    path.write_bytes(data)


def slices(source):
    """All images of a volume along its last axis: [X, Y, Z]."""
    return np.stack(source.read(np.arange(source.num_examples))["image"], axis=2)[..., 0]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Nifti1Image", "a.nii"),
        ("Nifti1Image", "A.NII.gz"),
        ("Nifti2Image", "a.nii"),
        ("Nifti1Pair", "a.img"),
        ("Nifti2Pair", "a.img"),
        ("AnalyzeImage", "a.img"),
        ("Spm2AnalyzeImage", "a.img"),
    ],
)
def test_every_kind_of_file(tmp_path, kind, name):
    save(tmp_path / name, VALUES, kind)
    (tmp_path / "landsat.hdr").write_text("ENVI\nlines = 3")  # another format's
    (tmp_path / "landsat.img").write_bytes(bytes(100))
    source = nifti.make(str(tmp_path), window=WINDOW)
    np.testing.assert_array_equal(slices(source), VALUES)
    assert source.name(3) == f"{name.replace('.img', '.hdr')}[3]"
    assert "files of other kinds: .hdr 1, .img 1" in source.notes[0]


def test_colors(tmp_path):
    values = RNG.integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)
    save(tmp_path / "a.nii", values.view(RGB)[..., 0])
    source = nifti.make(str(tmp_path), axis=1)  # no window is needed
    found = np.stack(source.read(np.arange(5))["image"], axis=1)
    np.testing.assert_array_equal(found, values)


def test_axes_of_one_after_the_fourth(tmp_path):
    values = RNG.integers(0, 256, (4, 5, 6, 2, 1)).astype(np.uint8)
    save(tmp_path / "a.nii", values)
    found = nifti.make(str(tmp_path), window=WINDOW).read([2])["image"][0]
    np.testing.assert_array_equal(found, values[:, :, 2, :, 0])


@pytest.mark.parametrize(
    "fields",
    [
        dict(_252=("<hh3f", 1, 0, 5e10, 7.0, 9.0)),  # a quaternion that is none
        dict(_76=("<8f", *[np.nan] * 8), _252=("<hh", 0, 1), _280=("<12f", *[1e38] * 12)),
        dict(_112=("<ff", 0.0, 5.0)),  # a slope of 0 means none
        dict(_112=("<ff", np.nan, np.nan)),
    ],
)
def test_where_a_volume_is_in_space_does_not_matter(tmp_path, fields):
    save(tmp_path / "a.nii", VALUES)
    patch(tmp_path / "a.nii", **fields)
    np.testing.assert_array_equal(slices(nifti.make(str(tmp_path), window=WINDOW)), VALUES)


def test_what_is_no_volume_is_left_out_and_counted(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    save(tmp_path / "a.nii", VALUES)
    save(tmp_path / "table.nii", VALUES[..., 0])
    save(tmp_path / "curve.nii.gz", VALUES[0, 0])
    save(tmp_path / "warp.nii", np.zeros((3, 4, 5, 1, 3), np.float32), intent="vector")
    scalars = nibabel.cifti2.ScalarAxis(["depth"])
    brain = nibabel.cifti2.BrainModelAxis.from_mask(np.ones((3, 3, 3), bool), affine=np.eye(4))
    surface = nibabel.Cifti2Image(np.zeros((1, 27), np.float32), (scalars, brain))
    nibabel.save(surface, tmp_path / "thickness.dscalar.nii")
    source = nifti.make(str(tmp_path), window=WINDOW)
    np.testing.assert_array_equal(slices(source), VALUES)
    rank = "arrays of rank {} (vectors, surfaces, tables), e.g. {}"
    assert source.notes == (
        "left out files without an image: "
        f"1 {rank.format(1, 'curve.nii.gz')}; 1 {rank.format(2, 'table.nii')}; "
        f"1 {rank.format(5, 'warp.nii')}; 1 surface data (CIFTI), e.g. thickness.dscalar.nii",
    )
    assert not source.damaged


def test_damaged_volumes(tmp_path):
    for name in ("a.nii", "empty.nii", "gzipped.nii.gz"):
        save(tmp_path / name, VALUES)
    (tmp_path / "gzipped.nii.gz").rename(tmp_path / "gzipped.nii")
    patch(tmp_path / "empty.nii", _46=("<h", 0))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"hello" * 100))
    save(tmp_path / "complex.nii", VALUES.astype(np.complex64))
    save(tmp_path / "orphan.img", VALUES, "Nifti1Pair")
    (tmp_path / "orphan.img").unlink()
    source = nifti.make(str(tmp_path), window=WINDOW)
    no_start = "it does not start as NIfTI files do (a .nii.gz is gzipped, a .nii is not)"
    lost = f"{tmp_path / 'orphan.img'}, which should hold its values, is missing"
    assert source.damaged == [
        f"b.nii.gz: {no_start}",
        "complex.nii: it holds complex64 values: save them as integers or floats",
        "empty.nii: it has shape (4, 5, 0), which is empty",
        f"gzipped.nii: {no_start}",
        f"orphan.hdr: {lost}",
    ]
    assert source.num_examples == 6 + 5
    with pytest.raises(BadImage, match="it does not start as NIfTI files do"):
        source.read([6])


def ifd(*tags):
    """A TIFF file with one directory of tags (number, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)


def test_tiff_files_without_an_image(tmp_path, caplog):
    tifffile = pytest.importorskip("tifffile")
    values = RNG.integers(0, 256, (4, 5)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values)
    (tmp_path / "exif.tif").write_bytes(ifd((274, 3, 1, 1)))  # an orientation alone
    (tmp_path / "bare.tif").write_bytes(ifd((256, 3, 1, 4), (257, 3, 1, 4)))
    (tmp_path / "html.tif").write_text("<html>")
    (tmp_path / "pages.tif").write_bytes(struct.pack("<2sHI", b"II", 42, 0))
    source = tiff.make(str(tmp_path))
    np.testing.assert_array_equal(source.read([0])["image"][0][..., 0], values)
    assert (
        source.notes[0] == "left out files without an image: 1 TIFF without an image, e.g. exif.tif"
    )
    assert [line.partition(":")[0] for line in source.damaged] == [
        "bare.tif",
        "html.tif",
        "pages.tif",
    ]
    assert not caplog.records
    for name in ("a", "bare", "html", "pages"):
        (tmp_path / f"{name}.tif").unlink()
    with pytest.raises(UserError, match="there is no image in .*, only 1 TIFF without an image"):
        tiff.make(str(tmp_path))
