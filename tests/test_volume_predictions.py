"""Predictions and features of volumes: labels go back to the space of each file."""

import json
import types

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data
from mae_jax.data.sources import ellipsoids, volume
from mae_jax.data.volume_grids import PreparedGeometry, prepared_geometry
from mae_jax.evals.sliding import logits_of
from mae_jax.features import write_features
from mae_jax.models import vit
from mae_jax.predictions import make_writer
from mae_jax.predictions.volume_segmentation import save
from mae_jax.types import UserError
from tests.helpers.dicoms import pydicom
from tests.helpers.volumes import affine, nibabel, save_nifti, save_series, series

PATTERN = np.random.default_rng(0).integers(0, 4, (6, 5, 4))  # classes [X, Y, Z] in RAS+
CT = (-200, 1075)  # five units a level: class k is read as 40 + 20 k


class Method:
    def offers(self):
        return ("features", "segmentation")

    def labels(self):
        return {"segmentation": 4}

    def embeddings(self):
        return ()

    def encoders(self):
        return {"params/encoder": vit.make(width=8, depth=1, heads=1, patch=(2, 1, 3))}

    def check_output(self, name, output):
        pass


def run_of(folder, **options):
    options = dict(train_transform="", eval_transform="", fields=(), workers=1) | options
    data = make_data(train=f"volume({str(folder)!r}, window={CT})", batch_size=2, **options)

    def predictor(state, outputs, reduce=None):
        if outputs == ("features",):
            return lambda batch: {
                "features": batch["image"].reshape(len(batch["image"]), -1).astype(np.float32),
                "valid": batch["valid"],
            }
        assert outputs == ("segmentation",) and reduce is logits_of

        def predict(batch):
            levels = np.float32([40, 60, 80, 100])
            return {"logits": -((batch["image"].astype(np.float32) - levels) ** 2)}

        return predict

    return types.SimpleNamespace(method=Method(), data=data, predictor=predictor)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """One pattern as a volume in four files, and the labels as each of them stores its axes."""
    folder, values = tmp_path_factory.mktemp("scans"), (100 * PATTERN).astype(np.int16)
    stored = {
        name: save_nifti(folder / f"{name}{ending}", values, name, kind)
        for name, ending, kind in (
            ("RAS", ".nii", "Nifti1Image"),
            ("LPS", ".nii.gz", "Nifti1Image"),
            ("PIR", ".img", "Nifti1Pair"),
        )
    }
    save_series(folder / "series", series(values, "sagittal"))
    return folder, {name: array // 100 for name, array in stored.items()}


def test_a_prediction_goes_back_into_the_space_of_each_file(scans, tmp_path):
    folder, stored = scans
    run, out = run_of(folder), tmp_path / "out"
    options = "volume_segmentation(crop=(2, 4, 3), batch_size=3, limit=9)"
    writer = make_writer(run.method, "tasks.segment", options, rank=3)
    (line,) = writer.write(run, None, out, {"segmentation": ("air", "x", "y", "z")})
    assert line == f"{out}: labels/ and overlays/ of 4 volumes, classes.json"
    files = sorted(path.relative_to(out / "labels") for path in (out / "labels").rglob("*.*"))
    names = [str(file).removesuffix(".nii.gz") for file in files]
    assert names[:3] == ["LPS", "PIR", "RAS"] and names[3].startswith("series/IM")
    for file, name in zip(files, names):
        found = nibabel.load(out / "labels" / file)
        canonical = nibabel.as_closest_canonical(found)
        np.testing.assert_array_equal(np.asarray(canonical.dataobj), PATTERN)
        np.testing.assert_allclose(canonical.affine, affine(), atol=1e-4)
        assert found.get_data_dtype() == np.uint8
        np.testing.assert_allclose(found.header.get_zooms(), np.abs(found.header["pixdim"][1:4]))
        if name in stored:
            original = nibabel.load(next(folder.glob(f"{name}.*")))
            np.testing.assert_array_equal(np.asarray(found.dataobj), stored[name])
            np.testing.assert_array_equal(found.affine, original.affine)
            assert "".join(nibabel.aff2axcodes(found.affine)) == name
    # Of the series: columns, rows, slices, as in its files.
    slices = [pydicom.dcmread(path) for path in (folder / "series").iterdir()]
    for one in slices:
        at = np.array([*map(float, one.ImagePositionPatient)]) * (-1, -1, 1)
        place = np.linalg.solve(found.affine, [*at, 1])[:3]
        np.testing.assert_allclose(place[:2], 0, atol=1e-3)
        plane = np.asarray(found.dataobj)[:, :, round(place[2])].T
        np.testing.assert_array_equal(plane, (one.pixel_array.astype(int) - 1024) // 100)
    rows = json.loads((out / "classes.json").read_text())
    assert [row["name"] for row in rows] == ["air", "x", "y", "z"]
    with Image.open(out / "overlays" / "LPS.png") as overlay:
        # 5 x 1.25 mm, then 4 x 3 mm high, at 0.8 mm a pixel
        assert overlay.size == (6 + 2 + 6 + 2 + 8, 15)
    with pytest.raises(UserError, match="there are files in it already"):
        writer.write(run, None, out, {})


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1e-3), ("meter", 1e3), ("unknown", 1)])
def test_units_of_files_are_read_and_written_back(tmp_path, unit, factor):
    """Geometry is in mm, whatever the unit of the file, which its prediction has, too."""
    spacing = tuple(side / factor for side in (0.8, 1.25, 3.0))
    save_nifti(tmp_path / "mm/a.nii", PATTERN.astype(np.uint8), "LPS")
    stored = save_nifti(tmp_path / "a.nii", PATTERN.astype(np.uint8), "LPS", placed=affine(spacing))
    original = nibabel.load(tmp_path / "a.nii")
    image = nibabel.Nifti1Image(stored, original.affine)
    image.header.set_xyzt_units(unit)
    (tmp_path / "unit").mkdir()
    nibabel.save(image, tmp_path / "unit/a.nii")
    source = volume.make(str(tmp_path / "unit"), window=(0, 255))
    geometry = source.geometry(0)
    np.testing.assert_allclose(geometry.spacing, (3, 1.25, 0.8), rtol=1e-6)
    places = volume.make(str(tmp_path / "mm"), window=(0, 255)).geometry(0).affine[:, :3]
    np.testing.assert_allclose(geometry.affine[:, :3], places, atol=1e-6)
    prepared = prepared_geometry(geometry, [slice(0, n) for n in geometry.space], None)
    prepared = PreparedGeometry.from_json(json.loads(json.dumps(prepared.to_json())))
    for number, one in enumerate((geometry, prepared)):
        path = save(tmp_path / str(number), PATTERN.T.astype(np.uint8), one)
        found = nibabel.load(path)
        np.testing.assert_array_equal(found.affine, original.affine)
        np.testing.assert_array_equal(np.asarray(found.dataobj), stored)
        assert found.header.get_xyzt_units()[0] == ("mm" if unit == "unknown" else unit)


def test_unreadable_volumes_are_skipped_if_asked_for(scans, tmp_path, caplog):
    whole = (scans[0] / "RAS.nii").read_bytes()
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "good.nii").write_bytes(whole)
    (folder / "short.nii").write_bytes(whole[:-10])
    run = run_of(folder, on_error="skip")
    writer = make_writer(run.method, "x", "", rank=3)
    (line,) = writer.write(run, None, tmp_path / "out", {})
    assert "of 1 volumes" in line and "short.nii" in caplog.text


def test_the_writer_follows_from_the_images(scans):
    images = make_writer(Method(), "x", "segmentation(size=8)", rank=2)
    assert images.write.func.__module__.endswith(".segmentation")
    with pytest.raises(UserError, match="--spec segmentation: x predicts volume_segmentation"):
        make_writer(Method(), "x", "", "segmentation", rank=3)


def test_volumes_without_geometry_become_arrays(tmp_path):
    assert ellipsoids.make(size=8, num_examples=1).geometry(0) is None
    path = save(tmp_path / "[0]", np.arange(24, dtype=np.uint8).reshape(2, 3, 4), None)
    assert path.name == "[0].npy" and np.load(path).shape == (2, 3, 4)


def test_features_come_with_geometry(scans, tmp_path):
    folder, _ = scans
    run = run_of(folder, eval_transform="center_crop((4, 5, 6))")
    run.name = "mae"
    out, count = write_features(run, None, tmp_path / "features.npz")
    with np.load(out) as content:
        found = dict(content)
    assert count == 4 and found["features"].shape == (4, 120)
    assert found["grid"].tolist() == [2, 5, 2]
    source = volume.make(str(folder), window=CT)
    for index in range(4):
        geometry = source.geometry(index)
        np.testing.assert_array_equal(found["affine"][index], geometry.affine_of_read)
        np.testing.assert_allclose(found["affine"][index], affine()[:, [2, 1, 0, 3]], atol=1e-4)
        np.testing.assert_allclose(found["spacing"][index], (3, 1.25, 0.8), rtol=1e-6)
        assert found["shape"][index].tolist() == [4, 5, 6]
