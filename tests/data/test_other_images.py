"""Folders that commands read with `--images`, as a run read its training set."""

import json
import sys
import types

import numpy as np
import pytest

from mae_jax import restore
from mae_jax.configs.common import base
from mae_jax.data import sources
from mae_jax.data.other_images import FOLDER, source_like, spacing_notes
from mae_jax.data.sources import multispectral, ome_zarr, volume, volume_records
from mae_jax.spec import build, choices, maker, parse
from mae_jax.types import UserError
from tests.data import test_multispectral as bands
from tests.data import test_ome_zarr as zarr
from tests.helpers.volumes import affine, hounsfield, save_nifti


@pytest.mark.parametrize(
    ("trained", "shape", "expected"),
    [
        ("tiff('x', pages=channels)", None, "tiff('y', pages='channels')"),
        ("volume(path='x', window=(-9, 9), masks='z')", (4,) * 4, "volume('y', window=(-9, 9))"),
        ("frames('x', frames=0, channels=1)", (4,) * 4, "frames('y', frames=0, channels=1)"),
        ("ome_zarr('x', level=1, labels=nuclei)", (4,) * 4, "ome_zarr('y', level=1)"),
        ("multispectral('x', bands=(a, b))", (4, 4, 2), "multispectral('y', bands=('a', 'b'))"),
        ("volume_records('x', split=test)", (4,) * 4, "volume_records('y', split='test')"),
        ("table('x.csv', label=a, window=(0, 9))", None, "folder('y', window=(0, 9))"),
        ("folder('x', masks='z', channels=4)", (4, 4, 4), "folder('y', channels=4)"),
        ("array_file('x.npy')", (8, 12, 4), "folder('y', channels=4)"),
        ("fashion_scenes(size=8)", (8, 8, 3), "folder('y', channels=3)"),
        ("captioned(\"nifti('x', axis=1)\", tokenizer='t')", None, "nifti('y', axis=1)"),
        ("captioned('x', tokenizer='t')", (4, 4, 1), "folder('y', channels=1)"),
        ("", None, "folder('y')"),
    ],
)  # fmt: skip
def test_folders_are_read_as_the_training_set_was(trained, shape, expected):
    assert source_like(trained, "y", shape) == expected
    assert source_like(trained, "z('other')", shape) == "z('other')", "specs are unchanged"


@pytest.mark.parametrize(
    ("trained", "shape", "message"),
    [
        ("windows(\"tiff('x')\", 8)", (4, 4, 1), r"the run's .* windows.*give a source in p"),
        ("spectral_fields(size=8)", (8, 8, 8), r"are \[8, 8, 8\], .* of 1, 3, 4 channels: give a"),
        ("ellipsoids(size=8)", (8, 8, 8, 1), r"folders are of 2-D images .* e.g. volume\('y'\)"),
        ("array_file('x')", (24, 2), r"folders are of 2-D images .*rank=1\)"),
        ("nowhere.source('x')", (4, 4, 3), "nowhere"),
    ],
)  # fmt: skip
def test_folders_that_no_source_would_read_alike_are_refused(trained, shape, message):
    with pytest.raises(UserError, match=message):
        source_like(trained, "y", shape)


def test_every_source_keeps_the_options_that_make_its_pixels():
    """So that a new source needs no entry anywhere: of its own kind, or with all of `folder`'s."""
    for name in choices(sources):
        known = maker(name, "data.sources").__annotations__
        try:
            call = parse(source_like(f"{name}('x')", "y", (8, 8, 3)))[0]
        except UserError:
            continue
        made_of_files = known.keys() - {"file", "images", "return"} and "path" in known
        assert call.name == name or {*FOLDER} <= known.keys() or not made_of_files, name


def test_sources_of_users_are_read_alike(monkeypatch):
    def of_files(path: str, gain: int = 1, *, masks: str = ""): ...

    def of_nothing(*, size: int = 8): ...

    module = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    for name, make in (("files", of_files), ("nothing", of_nothing)):
        module.__path__ = []
        monkeypatch.setitem(sys.modules, f"mine.{name}", types.ModuleType(f"mine.{name}"))
        sys.modules[f"mine.{name}"].make = make
    assert source_like("mine.files('x', 3, masks='z')", "y", None) == "mine.files('y', 3)"
    with pytest.raises(UserError, match="give a source in place of the folder"):
        source_like("mine.nothing(size=8)", "y", (8, 8, 3))


def test_bands_keep_their_order_and_window(tmp_path):
    pytest.importorskip("tifffile")
    other, contiguous = bands.VALUES[..., ::-1], dict(planarconfig="contig")
    bands.write(tmp_path / "a/1.tif", bands.VALUES, **contiguous, extratags=bands.gdal(bands.BANDS))
    bands.write(tmp_path / "b/1.tif", other, **contiguous, extratags=bands.gdal(bands.BANDS[::-1]))
    options = dict(bands=("B08", "B03"), window=(0, 3000))
    trained = f"multispectral({str(tmp_path / 'a')!r}, bands=(B08, B03), window=(0, 3000))"
    source = build(source_like(trained, str(tmp_path / "b"), (6, 7, 2)), "data.sources")
    expected = bands.read(multispectral.make(str(tmp_path / "a"), **options))
    np.testing.assert_array_equal(bands.read(source), expected)


def test_zarr_keeps_its_channels_and_window(tmp_path):
    pytest.importorskip("tensorstore")
    values = zarr.values()
    for name in "ab":
        zarr.save(tmp_path / name, values)
    trained = f"ome_zarr({str(tmp_path / 'a')!r}, channels=(1,), window=(0, 4000), labels=cells)"
    source = build(source_like(trained, str(tmp_path / "b"), None), "data.sources")
    expected = ome_zarr.make(str(tmp_path / "a"), channels=(1,), window=(0, 4000))
    np.testing.assert_array_equal(zarr.image_of(source), zarr.image_of(expected))


def test_volumes_of_another_spacing_are_noted(tmp_path):
    """Beside what a prepared set was resampled to; 0 keeps the spacing of each volume."""
    values = hounsfield(5, 4, 3)
    for name, spacing in (("near", (2, 1.04, 1)), ("far", (2, 1.2, 1))):
        save_nifti(tmp_path / name / "1.nii", values, "LPS", placed=affine(spacing))
    near, far = (volume.make(str(tmp_path / n), window=(-200, 1075)) for n in ("near", "far"))
    trained = f"volume_records({str(tmp_path)!r}, split=train)"
    assert not [*spacing_notes(trained, far)], "the set is on another machine"
    for spacing, noted in (([1.0, 1.0, 2.0], [far]), ([0.0, 0.0, 1.0], [near, far]), (None, [])):
        (tmp_path / "source.json").write_text(json.dumps({"spacing": spacing}))
        for source in (near, far):
            assert len([*spacing_notes(trained, source)]) == (source in noted)
    (tmp_path / "source.json").write_text(json.dumps({"spacing": [1, 1, 2]}))
    run = types.SimpleNamespace(data=types.SimpleNamespace(source={"train": far}.get))
    before = far.notes
    restore._note_spacing(run, trained, train="y", test=None)
    *kept, line = far.notes
    assert tuple(kept) == before and line.startswith("1.nii has voxels of 1 x 1.2 x 2 mm, and the")
    assert "resampled to 1 x 1 x 2 mm: prepare these in the same way" in line
    assert not [*spacing_notes("volume('x')", far)]


def test_scans_for_a_prepared_set_are_prepared_first(tmp_path):
    with pytest.raises(
        UserError, match="Prepare scans .* source, window and spacing in the set's s"
    ):
        volume_records.make(str(tmp_path))


def test_imported_weights_name_no_source(tmp_path, monkeypatch):
    """Their config may come from anywhere, so nothing that it names is imported."""

    class Built(Exception):
        pass

    def build(config):
        raise Built(config.data.train, config.data.test)

    config = base()
    config.method = dict(name="mae", args={})
    config.data.update(train="captioned('evil.module()', tokenizer='t')", test="evil.module()")
    monkeypatch.setattr(restore, "read_config", lambda _: config.copy_and_resolve_references())
    monkeypatch.setattr(restore, "is_folder_of_weights", lambda _: True)
    monkeypatch.setattr(restore.weights, "image_of", lambda _: (8, 8, 3))
    monkeypatch.setattr(restore, "build", build)
    for given in ("images", "test"):
        with pytest.raises(Built) as found:
            restore.open_run(tmp_path, **{given: "photos"})
        assert {*found.value.args} <= {"folder('photos', channels=3)", ""}
