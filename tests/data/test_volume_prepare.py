"""Volumes packed by `mae-jax prepare`: crop, spacing, windows, bricks, and the way back."""

import json
import math
import os
import shlex
import tracemalloc

import numpy as np
import pytest

from mae_jax.data import make_data, volume_examples
from mae_jax.data.bricks import BRICK
from mae_jax.data.images import BadImage
from mae_jax.data.prepare import prepare
from mae_jax.data.resampling import Resampled, linear, nearest
from mae_jax.data.sources import volume, volume_records
from mae_jax.data.volume_geometry import STACK, VolumeGeometry, to_original
from mae_jax.data.volume_grids import PreparedGeometry, prepared_geometry, thick_axis
from mae_jax.data.volume_shards import PreparedVolume
from mae_jax.types import UserError
from tests.helpers.commands import mistake, run
from tests.helpers.volumes import affine, hounsfield, nibabel, save_nifti, save_series, series

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")
CT = (-200, 1075)
SPACING = (0.8, 1.25, 2.0)  # of x, y and z


def everything(source):
    """Name -> (image, segmentation, label) of all volumes."""
    rows = source.read(np.arange(source.num_examples))
    count = source.num_examples
    masks = rows.get("segmentation", [None] * count)
    labels = rows.get("label", [None] * count)
    masks = [None if mask is None else mask.pixels() for mask in masks]
    return {source.name(i): (rows["image"][i].pixels(), masks[i], labels[i]) for i in range(count)}


def blob(shape, low, high, seed=0):
    """Values [X, Y, Z] int16 of air, -1000, and tissue in a box; and labels of its halves."""
    values = np.full(shape, -1000, np.int16)
    box = tuple(map(slice, low, high))
    values[box] = hounsfield(*np.subtract(high, low), seed=seed)
    labels = np.zeros(shape, np.int16)
    labels[box] = 1
    labels[shape[0] // 2 : high[0], box[1], box[2]] = 2
    return values, labels


@pytest.fixture
def scans(tmp_path):
    """Five volumes of two classes in files of different orientation, one of them damaged."""
    for n, codes in enumerate(("RAS", "LPS", "PIR", "LPS", "RAS")):
        shape = (40 + n, 37, 9 + n)
        values, labels = blob(shape, (4, 3, 2), (33, 36, 8), seed=n)
        name = f"class{n % 2}/{n}.nii.gz"
        save_nifti(tmp_path / "scans" / name, values, codes, placed=affine(SPACING))
        save_nifti(tmp_path / "masks" / name, labels, "RAS", placed=affine(SPACING))
    path = tmp_path / "scans/class1/3.nii.gz"
    path.write_bytes(path.read_bytes()[:900])
    return tmp_path


def spec_of(root, **options):
    """The source of the volumes."""
    options = {"masks": str(root / "masks"), "window": CT, **options}
    more = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"volume({str(root / 'scans')!r}, {more})"


def test_volumes_are_packed_as_they_are_read(scans, tmp_path, capsys):
    """Without resampling bit for bit, from .nii.gz that need not be decompressed again."""
    spec, out = spec_of(scans), tmp_path / "out"
    assert run("prepare", "--images", spec, "--out", out, "--held-out", 0.4, "--name", "ct") == 0
    printed = capsys.readouterr().out.splitlines()
    folder = out / "ct" / "1.0.0"
    sets = {split: volume_records.make(str(folder), split=split) for split in ("train", "test")}
    found = everything(sets["train"]) | everything(sets["test"])
    source = volume.make(str(scans / "scans"), window=CT, masks=str(scans / "masks"))
    damaged = source.name(4)
    assert damaged == "class1/3.nii.gz" and found.keys() == {source.name(i) for i in range(4)}
    for index in range(4):
        row = {name: values[0] for name, values in source.read([index]).items()}
        image, mask, label = found[source.name(index)]
        np.testing.assert_array_equal(image, row["image"].pixels())
        np.testing.assert_array_equal(mask, row["segmentation"].pixels())
        assert label == row["label"] and image.dtype == np.uint8 and mask.dtype == np.int32
    assert {n: len(s.entries) for n, s in sets.items()} == {"train": 3, "test": 1}
    unreadable = json.loads((folder / "unreadable.json").read_text())
    assert list(unreadable) == [damaged] and "left out 1 that cannot be read" in printed[1]
    assert printed[0] == f"{folder} is complete: 3 train and 1 test volumes"
    pixels = np.concatenate([image.ravel() for image, _, _ in everything(sets["train"]).values()])
    exact = pixels / 255
    np.testing.assert_allclose(sets["train"].statistics, ([exact.mean()], [exact.std()]))
    flags = dict(one.split("=", 1) for one in shlex.split(" ".join(printed[2:])))
    data = make_data(
        train=flags["--config.data.train"],
        test=flags["--config.data.test"],
        batch_size=4,
        train_transform="random_crop((5, 8, 8))|flip",
        eval_transform="center_crop((5, 8, 8))",
        fields=("label", "segmentation"),
    )
    batch = next(data.train(0))
    assert batch["image"].shape == (4, 5, 8, 8, 1) and batch["segmentation"].shape == (4, 5, 8, 8)
    summary = prepare(spec, out, name="ct", held_out=0.4)
    assert summary.found and summary.unreadable == 1
    with pytest.raises(UserError, match="spacing: None there, .2.0, 2.0, 2.0. now"):
        prepare(spec, out, name="ct", held_out=0.4, spacing=2)


def test_crop_spacing_and_the_way_back(scans, tmp_path):
    """Against interpolation in float64, point by point; predictions go back to each file."""
    prepare(
        spec_of(scans), tmp_path, name="ct", spacing=(1.7, 1, 2), crop_background=True, workers=2
    )
    source = volume_records.make(str(tmp_path / "ct/1.0.0"))
    whole = volume.make(str(scans / "scans"), window=CT, masks=str(scans / "masks"))
    numbers = {whole.name(i): i for i in range(4)}
    for index, (name, (image, mask, _)) in enumerate(everything(source).items()):
        row = whole.read([numbers[name]])
        old, labels = row["image"][0].exact().pixels()[..., 0], row["segmentation"][0].pixels()
        first, geometry = whole.geometry(numbers[name]), source.geometry(index)
        assert geometry.offset == (2, 3, 4) and geometry.extent == (6, 33, 29)
        assert geometry.spacing == (1.7, 1.0, 2.0) and geometry.orientation == first.orientation
        assert geometry.space == image.shape[:3] == mask.shape == (7, 41, 12)
        np.testing.assert_allclose(geometry.original_spacing, SPACING[::-1], rtol=1e-6)
        crop = old[2:8, 3:36, 4:33].astype(np.float64)
        for axis, weights in enumerate(
            dense(n, m, s, t)
            for n, m, s, t in zip(crop.shape, image.shape, SPACING[::-1], geometry.spacing)
        ):
            crop = np.moveaxis(np.tensordot(weights, crop, (1, axis)), 0, axis)
        np.testing.assert_allclose(image[..., 0], crop, atol=0.5 + 1e-3)
        places = np.stack(np.meshgrid(*map(np.arange, mask.shape), indexing="ij"), -1)
        mm = homogeneous(places) @ geometry.affine_of_read.T
        back = mm @ np.linalg.inv(first.affine_of_read).T  # [..., 4], in voxels of the file
        at = np.clip(np.floor(back[..., :3] + 0.5 + 1e-6).astype(int), (2, 3, 4), (7, 35, 32))
        np.testing.assert_array_equal(mask, labels[tuple(np.moveaxis(at, -1, 0))])
        stored = to_original(mask.astype(np.uint8), geometry)
        assert stored.shape == first.shape
        again = np.asarray(
            nibabel.as_closest_canonical(nibabel.Nifti1Image(stored, geometry.affine)).dataobj
        ).T
        assert (again != labels).mean() < 0.05 and not again[:2].any() and not again[8:].any()
        np.testing.assert_array_equal((again > 0), labels > 0)


def homogeneous(places):
    """Places [..., 3] as [..., 4]."""
    return np.concatenate([places, np.ones_like(places[..., :1])], -1).astype(float)


def dense(old, new, before, after):
    """[new, old] float64, weights of a triangle, from the distances of all pairs of voxels."""
    rows = []
    for j in range(new):
        center = np.clip((j + 0.5) * after / before - 0.5, 0, old - 1)
        row = np.maximum(0, 1 - np.abs(np.arange(old) - center) / max(1, after / before))
        rows.append(row / row.sum())
    return np.array(rows)


@pytest.mark.parametrize("step", [0.3, 0.5, 1, 1.9, 4])
def test_resampling_is_pillows_and_scipys(step):
    """Linear interpolation where the grid becomes finer; antialiased where it becomes coarser."""
    from PIL import Image
    from scipy import ndimage

    rng, old = np.random.default_rng(0), 40
    new = round(old / step)
    values = rng.normal(size=old).astype(np.float32)
    found = Resampled(values, [linear(old, new, old / new)]).pixels()
    exact = dense(old, new, 1, old / new) @ values.astype(np.float64)
    np.testing.assert_allclose(found, exact, atol=1e-6)
    if step <= 1:
        places = (np.arange(new) + 0.5) * (old / new) - 0.5
        scipys = ndimage.map_coordinates(values, [places], order=1, mode="nearest")
        np.testing.assert_allclose(found, scipys, atol=1e-6)
    image = Image.fromarray(values[None]).resize((new, 1), Image.Resampling.BILINEAR)
    edge = int(np.ceil(max(1, step)))  # Pillow does not clip centers
    np.testing.assert_allclose(found[edge:-edge], np.asarray(image)[0, edge:-edge], atol=1e-5)
    chosen = np.floor((np.arange(new) + 0.5) * old / new).astype(int)
    for dtype in (np.int64, np.uint8):
        numbers = rng.integers(0, 200, old).astype(dtype)
        resampled = Resampled(numbers, [nearest(old, new, old / new)])
        np.testing.assert_array_equal(resampled.pixels(), numbers[chosen])
        assert resampled.dtype == resampled[3:5,].dtype == dtype
    cube = rng.integers(0, 256, (9, 8, 7, 2)).astype(np.uint8)
    sides = [(9, 20), (8, 3), (7, 7)]
    lazy = Resampled(cube, [linear(a, b, a / b) for a, b in sides])
    for part in (np.s_[3:7, 1:2, ::2], (slice(4, 4),), np.s_[:, ::2]):
        np.testing.assert_array_equal(lazy[part], lazy.pixels()[part])


def test_the_thick_axis_is_resampled_apart():
    """As in nnU-Net: by the nearest slice, if one axis is over three times as coarse."""
    for before, after, axis in (
        ((3.1, 1, 1), (1, 1, 1), 0),
        ((3, 1, 1), (1, 1, 1), None),
        ((1, 1, 1), (1, 1, 4), 2),
        ((5, 1, 1), (1, 4, 1), 0),
        ((4, 4, 1), (1, 1, 1), None),
    ):
        assert thick_axis(before, after) == axis
    geometry = VolumeGeometry(affine=np.diag([1.0, 1, 4, 1]), shape=(5, 4, 3))
    plan = prepared_geometry(geometry, tuple(slice(0, n) for n in geometry.space), (2, 0.5, 1))
    assert plan.grid == (6, 8, 5) and plan.steps == (2, 0.5, 1)
    same = prepared_geometry(geometry, tuple(map(slice, (0,) * 3, geometry.space)), (0, 1, 1.00001))
    assert not same.resampled and same.spacing == (4, 1, 1)
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    found = Resampled(values, plan.taps(labels=False)).pixels()
    np.testing.assert_array_equal(found[::2], found[1::2])
    exact = np.tensordot(dense(4, 8, 1, 0.5), values, (1, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(found[::2], exact, atol=1e-6)
    again = PreparedGeometry.from_json(json.loads(json.dumps(plan.to_json())))
    assert vars(again).keys() == vars(plan).keys() - {"directions"} | {"affine"}
    np.testing.assert_array_equal(again.affine_of_read, plan.affine_of_read)
    floats = np.random.default_rng(1).random((6, 8, 5, 2))
    back = to_original(floats, again)  # [x, y, z, C]
    assert back.shape == (5, 4, 3, 2)
    np.testing.assert_allclose(
        back[0, 1, 1],
        dense(6, 3, 2, 4)[1]
        @ (dense(8, 4, 0.5, 1)[1] @ floats[:, :, 0].swapaxes(0, 1).reshape(8, -1)).reshape(6, 2),
        atol=1e-6,
    )


def test_a_crop_reads_its_bricks_only(tmp_path, monkeypatch):
    """Of every kind of part; of labels over 255 too."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (70, 40, 50)).astype(np.uint8)  # [D, H, W]
    labels = rng.integers(0, 9, values.shape).astype(np.int16)
    labels[40:, :, :5] += 700
    for name, array in (("scans", values), ("masks", labels)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", array)
    prepare(spec_of(tmp_path, window=None), tmp_path, name="v")
    source = volume_records.make(str(tmp_path / "v/1.0.0"))
    numbers = []
    read = source.records.__class__.__getitems__
    monkeypatch.setattr(
        source.records.__class__,
        "__getitems__",
        lambda self, keys: (numbers.extend(keys), read(self, keys))[1],
    )
    row = source.read([0])
    image, masks = row["image"][0], row["segmentation"][0]
    assert image[33:40, 2:9, 31:34].shape == (7, 7, 3, 1) and numbers == [5, 6]
    for part in (
        np.s_[33:40, 2:9, 31:34],
        np.s_[::7, 1:40:3],
        (slice(3, 3),),
        np.s_[64:, 32:, 32:],
    ):
        np.testing.assert_array_equal(image[part], values[part][..., None])
        np.testing.assert_array_equal(masks[part], labels[part])
    assert BRICK == 32 and masks.dtype == np.int32


@pytest.mark.parametrize("stop_after", [0, 4, 8])
def test_a_run_that_was_stopped_resumes(scans, tmp_path, monkeypatch, stop_after):
    """The files that are complete are kept, and the set is that of one run."""
    options = dict(name="ct", shard_megabytes=0.003, workers=1, spacing=2)
    whole = prepare(spec_of(scans), tmp_path / "whole", **options).folder
    opened, records = [], PreparedVolume.records

    def counted(self, values):
        for record in records(self, values):
            opened.append(record)
            if len(opened) > stop_after:
                raise KeyboardInterrupt
            yield record

    with monkeypatch.context() as patch:
        patch.setattr(PreparedVolume, "records", counted)
        with pytest.raises(KeyboardInterrupt):
            prepare(spec_of(scans), tmp_path / "cut", **options)
    finished = len(list((tmp_path / "cut/ct/unfinished").glob("*-?????-of-?????")))
    assert finished == {0: 0, 4: 1, 8: 2}[stop_after]
    folder = prepare(spec_of(scans), tmp_path / "cut", **options).folder
    for name in ("volumes.json", "statistics.json", "unreadable.json"):
        assert (folder / name).read_text() == (whole / name).read_text()
    both = [everything(volume_records.make(str(one))) for one in (whole, folder)]
    assert both[0].keys() == both[1].keys() and len(both[0]) == 4
    for name, (image, *_) in both[0].items():
        np.testing.assert_array_equal(image, both[1][name][0])


def test_a_run_that_was_killed_while_it_moved_the_files(scans, tmp_path, monkeypatch):
    options = dict(name="ct", shard_megabytes=0.003, workers=1, spacing=2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_after(3, of=os.replace, where="incomplete"))
        with pytest.raises(MemoryError):
            prepare(spec_of(scans), tmp_path, **options)
    root = tmp_path / "ct"
    assert len(list((root / "incomplete.volumes_1.0.0").glob("*.array_record-*"))) == 3
    with monkeypatch.context() as patch:
        patch.setattr(PreparedVolume, "records", None)  # no volume is read again
        folder = prepare(spec_of(scans), tmp_path, **options).folder
    assert len(everything(volume_records.make(str(folder)))) == 4
    assert [path.name for path in root.iterdir()] == ["1.0.0"]


def killed_after(count, of, where):
    """A function that fails after some calls into a folder of this name."""
    calls = []

    def call(source, target):
        if where in str(target):
            calls.append(target)
            if len(calls) > count:
                raise MemoryError
        return of(source, target)

    return call


def test_floats_medians_and_series(tmp_path):
    """float16 keeps levels between whole ones; the median of spacings; groups of echoes."""
    values = hounsfield(5, 4, 6)
    data = [*series(values, EchoTime="10"), *series(hounsfield(5, 4, 6, seed=1), EchoTime="20")]
    save_series(tmp_path / "scans", data)
    flat = np.diag([2.0, 1, 1, 1])
    save_nifti(tmp_path / "scans/wide.nii", values, "RAS", placed=flat)
    spec = f"volume({str(tmp_path / 'scans')!r}, window={CT}, dtype='float16')"
    summary = prepare(spec, tmp_path, name="v", spacing="median")
    source = volume_records.make(str(summary.folder))
    assert source.dtype == np.float16 and sorted(source.groups().tolist()) == [0, 0, 1]
    wide = next(n for n in range(3) if source.name(n) == "wide.nii")
    assert source.geometry(wide).spacing == (3, 1.25, 0.8)
    assert source.geometry(wide).space == (2, 3, 12)
    original = volume.make(str(tmp_path / "scans"), window=CT, dtype="float16")
    other = next(n for n in range(3) if n != wide)
    index = next(n for n in range(3) if original.name(n) == source.name(other))
    image, exact = source.read([other])["image"][0], original.read([index])["image"][0]
    np.testing.assert_array_equal(image.pixels(), exact.pixels())
    slices = to_original(image.pixels(), source.geometry(other))  # in the order of the files
    np.testing.assert_array_equal(slices, to_original(exact.pixels(), original.geometry(index)))
    image = source.read([wide])["image"][0].pixels()
    assert image.dtype == np.float16 and (image != np.rint(image)).any()


def test_what_is_refused(scans, tmp_path, capsys):
    np.save(tmp_path / "scans/stack.npy", np.zeros((4, 5, 6), np.uint8))
    plain = f"volume({str(scans / 'scans')!r}, window={CT})"
    for options, message in (
        (dict(spacing=1), "stack.npy has no spacing .1 of 6 volumes"),
        (dict(spacing=(1, 1)), "stack.npy has no spacing"),
        (dict(channels=3), "channels 3: volumes of .* have 1"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(plain, tmp_path, name="v", **options)
    assert not VolumeGeometry(affine=STACK, shape=(2, 2, 2), placed=False).measured
    (tmp_path / "scans/stack.npy").unlink()
    for wrong in ((1, 1), "wide", -1, (1, 1, float("inf"))):
        with pytest.raises(UserError, match="should be mm along depth, height and width"):
            volume_examples._spacing_of(wrong, {})
    line = mistake(capsys, "prepare", "--images", "photos", "--out", tmp_path, "--spacing", "1")
    assert "spacing and crop_background are options of volumes" in line
    with pytest.raises(UserError, match="holds no volumes.json: give the folder that mae-jax pre"):
        volume_records.make(str(tmp_path))
    folder = prepare(plain, tmp_path, name="v", workers=1).folder
    with pytest.raises(UserError, match="has no split 'test': choose one of train"):
        volume_records.make(str(folder), split="test")
    records = next(folder.glob("*.array_record-*"))
    data = bytearray(records.read_bytes())
    used = np.flatnonzero(np.frombuffer(bytes(data), np.uint8))
    middle = int(used[len(used) // 2])
    data[middle : middle + 64] = bytes(64)
    records.write_bytes(data)
    source, refused = volume_records.make(str(folder)), 0
    for index in range(source.num_examples):
        try:
            source.read([index])["image"][0].pixels()
        except BadImage as error:
            refused += "its record:" in str(error) and "\n" not in str(error)
    assert refused
    np.save(tmp_path / "air.npy", np.zeros((4, 5, 6), np.uint8))
    (tmp_path / "only").mkdir()
    (tmp_path / "air.npy").rename(tmp_path / "only/air.npy")
    with pytest.raises(
        UserError, match="no volume of train can be read; the first is air.npy: all"
    ):
        prepare(f"volume({str(tmp_path / 'only')!r})", tmp_path, name="w", crop_background=True)


@pytest.mark.thorough
def test_memory_is_flat(tmp_path):
    """A volume of 0.5 GB becomes finer a slab at a time."""
    header, side = nibabel.Nifti1Header(), 640
    header.set_data_dtype(np.int16)
    header.set_data_shape((side,) * 3)
    header.set_sform(np.eye(4), 1)
    header["vox_offset"] = 352
    (tmp_path / "scans").mkdir()
    with (tmp_path / "scans/1.nii").open("wb") as file:
        header.write_to(file)
        file.truncate(352 + 2 * side**3)
        file.seek(-2, 2)
        file.write(b"\xff\x00")
    spec = f"volume({str(tmp_path / 'scans')!r}, window=(0, 255))"
    tracemalloc.start()
    folder = prepare(spec, tmp_path, name="v", spacing=(0.9, 1, 1), workers=1).folder
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    image = volume_records.make(str(folder)).read([0])["image"][0]
    assert image.shape == (711, 640, 640, 1) and image[700:, 632:, 632:].max() > 100
    assert peak < 4 * math.prod(image.shape) / 4  # a quarter of it as float32
