"""Volumes: one orientation whatever the files', parts of large files, and what is refused."""

import itertools

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data.images import BadImage
from mae_jax.data.sources import volume
from mae_jax.data.volume_geometry import VolumeGeometry, to_original
from mae_jax.types import UserError
from tests.helpers.dicoms import dataset, windowed, write
from tests.helpers.volumes import affine, hounsfield, nibabel, save_nifti, save_series, series

pydicom = pytest.importorskip("pydicom")
CT = (-200, 1075)  # five units a level: no ties to round


def read(source, index=0):
    """The whole image of one volume."""
    return source.read(np.array([index]))["image"][0].pixels()


def test_one_volume_in_five_files_is_one_array(tmp_path):
    """Bit for bit, with its place in space; and each goes back to its own axes."""
    values = hounsfield(6, 5, 4)
    stored = {
        "LPS": save_nifti(tmp_path / "LPS/a.nii.gz", values, "LPS"),
        "PIR": save_nifti(tmp_path / "PIR/a.img", values, "PIR", "Nifti1Pair"),
        "RAS": save_nifti(tmp_path / "RAS/a.nii", values, "RAS"),
    }
    for planes in ("axial", "sagittal"):
        data = series(values, planes, slopes=(1, 2))
        save_series(tmp_path / planes, data)
        files = sorted((tmp_path / planes).iterdir())
        slices = [pydicom.dcmread(file) for file in files]
        assert [one.ImagePositionPatient for one in slices] != [
            one.ImagePositionPatient for one in data
        ]
        stored[planes] = np.stack(
            [s.pixel_array.astype(int) * int(s.RescaleSlope) - 1024 for s in slices]
        )
    source = volume.make(str(tmp_path), window=CT)
    assert source.class_names == ("LPS", "PIR", "RAS", "axial", "sagittal")
    assert not source.damaged and source.class_counts().tolist() == [1] * 5
    expected = windowed(values.transpose(2, 1, 0), *CT)[..., None]  # [z, y, x]
    for index, name in enumerate(source.class_names):
        found, geometry = read(source, index), source.geometry(index)
        assert source.read([index])["label"] == [index]
        np.testing.assert_array_equal(found, expected)
        back = to_original(source.volume(index).values(())[..., 0], geometry)
        np.testing.assert_array_equal(back, stored[name])
        assert geometry.orientation == {"axial": "SPL", "sagittal": "RIP"}.get(name, name)
        np.testing.assert_allclose(geometry.spacing, (3, 1.25, 0.8), rtol=1e-6)
        placed = affine()[:, [2, 1, 0, 3]]
        np.testing.assert_allclose(geometry.affine_of_read, placed, atol=1e-4)
    image = nibabel.load(tmp_path / "LPS/a.nii.gz")
    np.testing.assert_array_equal(source.geometry(0).affine, image.affine)
    np.testing.assert_array_equal(
        nibabel.as_closest_canonical(image).get_fdata().T, values.transpose(2, 1, 0)
    )
    for index in range(3):  # a prediction, saved in the file's own space
        own = to_original(source.read([index])["image"][0].pixels()[..., 0], source.geometry(index))
        saved = nibabel.Nifti1Image(own, source.geometry(index).affine)
        canonical = np.asarray(nibabel.as_closest_canonical(saved).dataobj)
        np.testing.assert_array_equal(canonical.T, expected[..., 0])
    with pytest.raises(ValueError, match="an array of shape .* is none of a volume"):
        to_original(np.zeros((6, 5, 4)), source.geometry(0))


def test_parts_are_parts_of_the_whole(tmp_path):
    values = hounsfield(7, 6, 5)
    save_nifti(tmp_path / "a/1.nii", values, "PIR")
    save_series(tmp_path / "b", series(values, "sagittal"))
    source = volume.make(str(tmp_path), window=CT)
    parts = [np.s_[1:4, 2:3, 0:5], np.s_[::2, 1:6:3, 4:7:2], (slice(2, 2),), np.s_[4:5, :, 6:]]
    for index, part in itertools.product(range(2), parts):
        image = source.read([index])["image"][0]
        whole = image.pixels()
        np.testing.assert_array_equal(image[part], whole[part])


def test_directions_are_those_of_nibabel():
    rng = np.random.default_rng(0)
    for _ in range(200):
        placed = np.eye(4)
        placed[:3, :3] = rng.normal(size=(3, 3)) * rng.uniform(0.2, 3, 3)
        geometry = VolumeGeometry(affine=placed, shape=(2, 3, 4))
        assert geometry.orientation == "".join(nibabel.aff2axcodes(placed))
        array = np.arange(24).reshape(2, 3, 4)
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image(array.astype(np.int16), placed))
        turned = geometry.turned(array)
        np.testing.assert_array_equal(turned, np.asarray(image.dataobj).T)
        np.testing.assert_array_equal(to_original(turned, geometry), array)
        corner = geometry.affine_of_read @ [1, 2, 1, 1] if min(turned.shape) > 2 else None
        if corner is not None:
            np.testing.assert_allclose(corner, image.affine @ [1, 2, 1, 1])
    with pytest.raises(BadImage, match="its affine is singular"):
        VolumeGeometry(affine=np.diag([1.0, 0, 1, 1]), shape=(2, 3, 4))


def test_series_that_are_refused(tmp_path):
    """Each in a line with the positions; they count as damaged, as images do."""
    values, flat = hounsfield(4, 4, 9), affine(angle=0.0)
    good = lambda uid: series(values, placed=flat, SeriesInstanceUID=uid)
    gap, twice, tilt = good("1.1"), good("1.2"), good("1.3")
    del gap[4]
    twice[3].ImagePositionPatient = twice[2].ImagePositionPatient
    for n, one in enumerate(tilt):
        one.ImagePositionPatient[1] += 0.4 * n
    for name, data in {"gap": gap, "good": good("1.4"), "tilt": tilt, "twice": twice}.items():
        save_series(tmp_path / name, data)
    source = volume.make(str(tmp_path), window=CT)
    assert source.num_examples == 4 and source.class_names == ("good",)
    assert [line.partition("/")[0] for line in source.damaged] == ["gap", "tilt", "twice"]
    lines = dict(zip(("gap", "tilt", "twice"), source.damaged))
    assert "unequal steps, so slices are missing: 3 mm, but between 119 and 125 mm" in lines["gap"]
    assert "at the same position along the normal, at 116 mm" in lines["twice"]
    assert "shifted by up to 3.2 mm across their normal, as with a tilted gantry" in lines["tilt"]
    assert "110.0), (" in lines["tilt"] and "and 3 more" in lines["tilt"]
    with pytest.raises(BadImage, match="slices are missing"):
        source.read([0])
    options = dict(batch_size=4, train_transform="center_crop((4, 4, 4))", eval_transform="")
    spec = f"volume({str(tmp_path)!r}, window={CT})"
    with pytest.raises(UserError, match="config.data.train: cannot read 3 of the files, gap/"):
        make_data(train=spec, **options)
    data = make_data(train=spec, on_error="skip", **options)
    next(data.train(0))
    assert data.skipped == 3


def test_what_is_no_volume_is_left_out_and_counted(tmp_path):
    data = series(hounsfield(4, 4, 3))
    save_series(tmp_path, data)
    write(tmp_path / "copy", data[1])
    scout = dict(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SOPInstanceUID="9.1")
    write(tmp_path / "scout", series(hounsfield(4, 4, 1), **scout)[0])
    write(tmp_path / "single", series(hounsfield(3, 4, 1), SOPInstanceUID="9.2")[0])
    write(tmp_path / "film", dataset(np.zeros((3, 4, 5), np.uint8)))
    write(tmp_path / "photo", dataset(np.zeros((4, 5), np.uint8)))
    np.save(tmp_path / "labels.npy", np.arange(3))
    source = volume.make(str(tmp_path), window=CT)
    assert source.num_examples == 1 and not source.damaged
    note = next(note for note in source.notes if note.startswith("left out files without a vol"))
    for text in (
        "1 localizer, e.g. scout",
        "1 copy of a slice (SOPInstanceUID), e.g. copy",
        "1 single slice of its series, e.g. single",
        "1 several frames without positions (a film), e.g. film",
        "1 image without a position (ImagePositionPatient), e.g. photo",
        "1 arrays of rank 1, e.g. labels.npy",
    ):
        assert text in note
