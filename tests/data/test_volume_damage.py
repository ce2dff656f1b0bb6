"""What is damaged is known at the start: its class is none, and volumes lack no mask later."""

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data.images import BadImage
from mae_jax.data.sources import Arrays, volume
from mae_jax.data.subset import hold_out, labels_of
from mae_jax.spec import build
from mae_jax.types import UserError
from tests.helpers.dicoms import write
from tests.helpers.volumes import save_nifti, series

tifffile = pytest.importorskip("tifffile")
BYTES = np.random.default_rng(0).integers(0, 256, (4, 5, 6)).astype(np.uint8)
OPTIONS = dict(batch_size=4, eval_transform="", on_error="skip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of four files [4, 5, 6]; of the last one, none can be read."""
    folder = tmp_path_factory.mktemp("classes")
    for sub in "abc":
        (folder / sub).mkdir()
        for number in range(4):
            np.save(folder / sub / f"{number}.npy", BYTES)
            save_nifti(folder / sub / f"{number}.nii", BYTES, "RAS")
    for path in (folder / "a/2", folder / "b/0", *((folder / "c" / str(n)) for n in range(4))):
        for ending in (".npy", ".nii"):
            path.with_suffix(ending).write_bytes(b"damaged")
    return folder


@pytest.mark.parametrize(
    ("text", "crop", "each"),
    [
        ("frames({!r}, frames=2, stride=1)", (2, 4, 4), 2),
        ("volume({!r}, window=(0, 255))", (2, 4, 4), 2),
        ("nifti({!r}, window=(0, 255))", (4, 4), 6),
    ],
)
def test_damaged_examples_have_no_class(folder, text, crop, each):
    spec, data = text.format(str(folder)), {}
    source = build(spec, "data.sources")
    good = [n for n in range(source.num_examples) if not _is_damaged(source, n)]
    labels = source.labels()
    assert source.class_names == ("a", "b") and 0 < len(good) < source.num_examples
    assert np.flatnonzero(labels >= 0).tolist() == good and labels.min() == -1
    assert source.class_counts().tolist() == np.bincount(source.read(good)["label"]).tolist()
    assert source.read(good)["label"] == labels[good].tolist()
    options = dict(OPTIONS, train=spec, train_transform=f"random_crop({crop})")
    for name, option in (
        ("share", dict(subset="share(0.5)")),
        ("few", dict(subset=f"per_class({each})")),
        ("balanced", dict(sampling="balanced")),
        ("held out", dict(held_out=0.3)),
    ):
        data = make_data(**options, **option)
        batches, stream = [], data.train(0)
        for _ in range(3):
            batches += next(stream)["label"].tolist()
        assert {*batches} == {0, 1}, name
        assert data.skipped == 0 or name == "held out"
        if name == "balanced":
            assert np.bincount(batches).tolist() == [6, 6]
        if name == "few":
            assert data.num_examples == 2 * each


def _is_damaged(source, index):
    try:
        source.read([index])
    except BadImage:
        return True
    return False


class Unreadable(Arrays):
    """Labels that are in the examples alone, of which two are damaged."""

    def labels(self):
        return None

    def read(self, indices):
        if {3, 7} & {*np.asarray(indices).tolist()}:
            raise BadImage("cut off")
        return super().read(indices)


def test_labels_that_must_be_read():
    images, labels = np.zeros((10, 4, 4, 1), np.uint8), np.arange(10) % 2
    source = Unreadable({"image": images, "label": labels}, {"label": ("a", "b")})
    expected = [0, 1, 0, -1, 0, 1, 0, -1, 0, 1]
    assert labels_of(source, skip=True).tolist() == expected
    with pytest.raises(UserError, match=r"cannot read \[3\]: cut off; .*on_error=skip"):
        labels_of(source)


def test_groups_without_a_class_are_held_out_apart():
    class Grouped(Arrays):
        def groups(self):
            return np.repeat(np.arange(30, dtype=np.int32), 3)

    labels = np.repeat([0, -1, 1] * 10, 3).astype(np.int32)
    kept, held = hold_out(Grouped({"label": labels}, {"label": ("a", "b")}), 0.2)
    assert np.sort(held.labels()).tolist() == [-1] * 6 + [0] * 6 + [1] * 6
    assert not {*(kept.indices // 3)} & {*(held.indices // 3)}


def test_volumes_without_a_mask_are_found_at_the_start(tmp_path):
    for number in range(4):
        save_nifti(tmp_path / f"images/{number}.nii", BYTES, "RAS")
    save_nifti(tmp_path / "masks/0.nii", BYTES, "RAS")
    save_nifti(tmp_path / "masks/3.nii", BYTES, "RAS")
    masks = tmp_path / "masks"
    options = dict(window=(0, 255), masks=str(masks))
    source = volume.make(str(tmp_path / "images"), **options)
    assert source.damaged == [f"{n}.nii: its mask {masks / f'{n}.nii'} is missing" for n in (1, 2)]
    assert "cannot read 2, e.g. 1.nii: its mask" in source.notes[0]
    with pytest.raises(BadImage, match="1.nii is missing"):
        source.read([1])
    np.testing.assert_array_equal(source.read([3])["segmentation"][0].pixels(), BYTES.T)
    for number, one in enumerate(series(BYTES.astype(np.int16))):
        write(tmp_path / f"scans/{number}.dcm", one)
        write(tmp_path / f"scan_masks/{number}.dcm", one)
    options["masks"] = str(tmp_path / "scan_masks")
    with pytest.raises(UserError, match="no mask that is read: 0.dcm: its mask is DICOM: save"):
        volume.make(str(tmp_path / "scans"), **options)
    with pytest.raises(
        UserError, match="no mask that is read: 0.nii: its mask .* is missing; give"
    ):
        volume.make(str(tmp_path / "images"), **options)


def test_tiff_stacks_page_by_page_and_in_blocks(tmp_path):
    """Pages with tifffile's defaults are one stack, blocks of slices are refused in a line."""
    gray, rgb = BYTES, np.stack([BYTES, BYTES // 2, 255 - BYTES], -1)
    for name, pages, options in (
        ("a", gray, dict(photometric="minisblack")),
        ("b", gray, dict(photometric="minisblack", compression="zlib")),
        ("c", rgb, dict(photometric="rgb")),
    ):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            for page in pages:
                file.write(page, **options)
            if name == "b":  # a mask as GDAL writes it
                file.write(pages[0] > 9, subfiletype=4, photometric="minisblack")
    blocks = dict(volumetric=True, tile=(16, 16, 16), photometric="minisblack")
    many = np.random.default_rng(0).integers(0, 256, (32, 32, 16)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "d.tif", many, **blocks)
    tifffile.imwrite(tmp_path / "e.tif", many, **blocks, compression="zlib")
    source = volume.make(str(tmp_path))
    assert source.num_examples == 5
    for index, expected in enumerate((gray[..., None], gray[..., None], rgb)):
        found = source.read([index])["image"][0]
        np.testing.assert_array_equal(found.pixels(), expected)
        np.testing.assert_array_equal(found[1:3, 2:, 1:5], expected[1:3, 2:, 1:5])
    why = "its 32 slices are in 1 page (ImageDepth) that is tiled or compressed: save a page for"
    assert source.damaged == [f"{name}.tif: {why} each slice" for name in "de"]
