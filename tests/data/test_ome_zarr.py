"""OME-Zarr: versions, axes, levels, channels, windows and labels; chunks that a crop reads."""

import json
import shutil

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data.images import BadImage
from mae_jax.data.prepare import prepare
from mae_jax.data.sources import ome_zarr, volume_records
from mae_jax.data.volume_geometry import to_original
from mae_jax.types import UserError
from tests.helpers.dicoms import windowed

SIZES = dict(t=2, c=3, z=5, y=12, x=14)
LABELS = ("DAPI", "GFP", "RFP")
RNG = np.random.default_rng(0)


def values(axes="tczyx", dtype=np.uint16, high=4000):
    """Random values with the axes."""
    return RNG.integers(0, high, [SIZES[axis] for axis in axes]).astype(dtype)


def save_array(folder, array, version, chunk=4):
    """An uncompressed Zarr array, written byte by byte: version 2, or 3 with other names."""
    folder.mkdir(parents=True)
    chunks = [1 if n < 4 else min(chunk, n) for n in array.shape]
    if version == 2:
        header = dict(zarr_format=2, shape=array.shape, chunks=chunks, order="C", filters=None)
        header |= dict(dtype=array.dtype.str, compressor=None, fill_value=0)
        (folder / ".zarray").write_text(json.dumps(header | {"dimension_separator": "/"}))
    else:
        regular = {"name": "regular", "configuration": {"chunk_shape": chunks}}
        header = dict(zarr_format=3, node_type="array", shape=array.shape, chunk_grid=regular)
        header |= dict(data_type=array.dtype.name, fill_value=0, attributes={})
        header |= {"chunk_key_encoding": {"name": "default"}}
        header["codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}]
        (folder / "zarr.json").write_text(json.dumps(header))
    for place in np.ndindex(*[-(-n // c) for n, c in zip(array.shape, chunks)]):
        part = array[tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunks))]
        full = np.zeros(chunks, array.dtype)
        full[tuple(map(slice, part.shape))] = part
        name = "/".join(map(str, place))
        path = folder / (name if version == 2 else f"c/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(full.tobytes())


def save(folder, array, axes="tczyx", version="0.4", omero=True, levels=1):
    """An image with metadata of a version; each further level has every second row and column."""
    zarr, unit = 3 if version == "0.5" else 2, {"type": "space", "unit": "micrometer"}
    named = [{"name": axis, **(unit if axis in "zyx" else {})} for axis in axes]
    datasets = []
    for level in range(levels):
        scale = [2.0**level * {"z": 2, "y": 0.5, "x": 0.5}.get(axis, 1) for axis in axes]
        steps = [{"type": "scale", "scale": scale}]
        datasets.append({"path": f"s{level}", "coordinateTransformations": steps})
        save_array(folder / f"s{level}", array[..., :: 2**level, :: 2**level], zarr)
    content = {"multiscales": [{"version": version, "axes": named, "datasets": datasets}]}
    window = lambda n: {"start": 100 * n, "end": 3825 + 100 * n, "min": 0, "max": 65535}
    if omero and "c" in axes:
        shown = [{"label": name, "window": window(n)} for n, name in enumerate(LABELS)]
        content["omero"] = {"channels": shown}
    if zarr == 2:
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(content))
    else:
        header = dict(zarr_format=3, node_type="group", attributes={"ome": content})
        (folder / "zarr.json").write_text(json.dumps(header))


def image_of(source, index=0):
    """One image, read as a whole."""
    return source.read(np.array([index]))["image"][0].pixels()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_times_channels_and_parts(tmp_path, version):
    stored = values()
    save(tmp_path / "a.zarr", stored, version=version)
    window = ((0, 3825), (500, 3305))  # 15 and 11 units a level: no ties to round
    source = ome_zarr.make(str(tmp_path), channels=("RFP", 0), window=window)
    assert [source.name(n) for n in range(2)] == ["a.zarr[0]", "a.zarr[1]"]
    assert source.groups().tolist() == [0, 0] and not source.flat
    for time in range(2):
        pair = [windowed(stored[time, c], *w) for c, w in zip((2, 0), window)]
        exact = np.stack(pair, -1)
        np.testing.assert_array_equal(image_of(source, time), exact)
        image = source.read([time])["image"][0]
        for part in (
            np.s_[1:3, 4:9, ::3],
            (slice(None, None, 2),),
            (slice(2, 2),),
            np.s_[4:, 11:, 13:],
        ):
            np.testing.assert_array_equal(image[part], exact[part])
    geometry = source.geometry(0)
    np.testing.assert_allclose(geometry.spacing, (2e-3, 5e-4, 5e-4))
    assert geometry.measured and geometry.orientation == "SAR"
    shown = ome_zarr.make(str(tmp_path), channels=("GFP",), window="omero")
    np.testing.assert_array_equal(image_of(shown)[..., 0], windowed(stored[0, 1], 100, 3925))
    alone = ome_zarr.make(str(tmp_path / "a.zarr"), window=(0, 4000), dtype="float16")
    exact = (np.moveaxis(stored[1], 0, -1) * (255 / 4000)).astype(np.float16)
    assert alone.name(1) == "a.zarr[1]"
    np.testing.assert_array_equal(image_of(alone, 1), exact)


@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "czyx", "tyx"])
def test_axes_that_are_missing(tmp_path, axes):
    stored = values(axes, np.uint8, 256)
    save(tmp_path / "a", stored, axes)
    source = ome_zarr.make(str(tmp_path))
    first = stored[0] if "t" in axes else stored
    exact = np.moveaxis(first, 0, -1) if "c" in axes else first[..., None]
    assert source.flat == ("z" not in axes) and source.num_examples == (2 if "t" in axes else 1)
    np.testing.assert_array_equal(image_of(source), exact)
    size = (3, 8, 8) if "z" in axes else (8, 8)
    crop = f"random_crop({size})|flip" if "z" in axes else "random_resized_crop(8)|flip"
    options = dict(train_transform=crop, eval_transform=f"center_crop({size})", batch_size=2)
    data = make_data(train=f"ome_zarr({str(tmp_path)!r})", **options)
    channels = exact.shape[-1]
    assert next(data.train(0))["image"].shape == (2, *size, channels)
    assert next(data.eval("train"))["image"].shape == (2, *size, channels)


def test_levels_percentiles_and_labels(tmp_path):
    stored = values("czyx")
    for sub in ("x", "y"):
        save(tmp_path / sub / "a", stored, "czyx", levels=2)
        numbers = RNG.integers(0, 9, stored.shape[1:]).astype(np.int32)
        save(tmp_path / sub / "a/labels/nuclei", numbers, "zyx", levels=2)
    options = dict(level=1, labels="nuclei", window="percentiles(1, 99)")
    source = ome_zarr.make(str(tmp_path), **options)
    assert source.class_names == ("x", "y") and source.num_examples == 2
    row = source.read([1])
    smaller = stored[..., ::2, ::2]
    for channel in range(3):
        low, high = np.percentile(smaller[channel], (1, 99))
        exact = windowed(smaller[channel], low, high)
        np.testing.assert_array_equal(row["image"][0].pixels()[..., channel], exact)
        assert source.window(1)[channel] == pytest.approx((low, high))
    masks = row["segmentation"][0]
    np.testing.assert_array_equal(masks.pixels(), numbers[..., ::2, ::2])
    np.testing.assert_array_equal(masks[1:2, 3:], numbers[1:2, ::2, ::2][:, 3:])
    np.testing.assert_allclose(source.geometry(0).spacing, (4e-3, 1e-3, 1e-3))
    whole = ome_zarr.make(str(tmp_path), window="percentiles(1, 99)")
    assert whole.window(0) == source.window(0)  # both from the smallest level
    unit = tmp_path / "y/a/labels/nuclei/.zattrs"
    unit.write_text(unit.read_text().replace(', "unit": "micrometer"', ""))
    labels = ome_zarr.make(str(tmp_path), **options).read([1])["segmentation"][0]
    np.testing.assert_array_equal(labels.pixels(), masks.pixels())  # no unit, nothing to compare
    with pytest.raises(UserError, match="cannot read .*x/a .nor can any.* no labels 'cells'"):
        ome_zarr.make(str(tmp_path), **{**options, "labels": "cells"})
    shutil.rmtree(tmp_path / "x/a/labels")
    assert ome_zarr.make(str(tmp_path), **options).damaged == ["x/a: it has no labels 'nuclei'"]
    unit.write_text("{}")
    with pytest.raises(BadImage, match="its labels: its metadata hold no 'multiscales'"):
        ome_zarr.make(str(tmp_path), **options).read([1])


def test_a_crop_reads_its_chunks_only(tmp_path):
    """All other chunks are damaged, and not noticed; a missing chunk is zeros, as Zarr says."""
    stored = values("zyx", np.uint8, 256)
    save(tmp_path / "a", stored, "zyx")
    for path in (tmp_path / "a/s0").glob("*/*/*"):
        if path.relative_to(tmp_path / "a/s0").parts != ("0", "1", "2"):
            path.write_bytes(b"no")
    (tmp_path / "a/s0/0/0/0").unlink()
    source = ome_zarr.make(str(tmp_path))
    image = source.read([0])["image"][0]
    np.testing.assert_array_equal(image[1:4, 4:8, 9:12][..., 0], stored[1:4, 4:8, 9:12])
    assert not image[1:4, :4, :4].any()
    with pytest.raises(BadImage) as error:
        image[1:4, 4:9, 9:12]
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_plates_and_what_is_refused(tmp_path):
    """Fields of wells are images, without classes; damaged images are refused one by one."""
    plate = tmp_path / "set/plate.zarr"
    for field in ("A/1/0", "A/1/1"):
        save(plate / field, values("cyx", np.uint8, 256), "cyx")
    (plate / ".zgroup").write_text('{"zarr_format": 2}')
    (plate / ".zattrs").write_text('{"plate": {}}')
    source = ome_zarr.make(str(tmp_path / "set"))
    assert [source.name(n) for n in (0, 1)] == ["plate.zarr/A/1/0", "plate.zarr/A/1/1"]
    assert source.class_names == () and "label" not in source.read([0])
    (plate / "A/1/1/.zattrs").write_text("{")
    save(tmp_path / "set/b", values("cyx", np.uint8, 256)[:, :, None], "cyx")
    save(tmp_path / "set/c", values("zyx", np.uint8, 256), "zyx")
    content = json.loads((tmp_path / "set/c/.zattrs").read_text())
    content["multiscales"][0]["axes"].reverse()
    (tmp_path / "set/c/.zattrs").write_text(json.dumps(content))
    source = ome_zarr.make(str(tmp_path / "set"), channels=("GFP",))
    assert [line.partition(":")[0] for line in source.damaged] == ["b", "c", "plate.zarr/A/1/1"]
    assert "it has 3 axes, and its array 4" in source.damaged[0]
    assert "its axes are x, y, z: some of t, c, z, y, x, in order" in source.damaged[1]
    assert "its metadata:" in source.damaged[2]
    (tmp_path / "empty").mkdir()
    deep = values("czyx")
    save(tmp_path / "deep/a", deep, "czyx", omero=False)
    for folder, options, message in (
        ("empty", {}, "there is no image in .*looked for folders with 'multiscales'"),
        ("deep", {}, "the corner of a holds uint16 values, from .* give window="),
        ("deep", dict(window=((0, 1), (0, 2))), "window has 2 pairs, and there are 3 channels"),
        ("deep", dict(window=(0, 9), level=1), "cannot read .*a: it has no level 1: it has 1"),
        ("deep", dict(window=(0, 9), channels=("GFP",)), "it has no channel 'GFP': it has 3"),
        ("deep", dict(window=(0, 9), channels=(3,)), "it has no channel 3"),
        ("deep", dict(channels="GFP"), "channels='GFP' should be names or numbers"),
        ("deep", dict(level=-1), "level -1 should be 0, 1"),
        ("deep", dict(dtype="float16"), "dtype='float16' needs a window"),
        ("deep", dict(window="best"), "window 'best' should be"),
    ):
        with pytest.raises(UserError, match=message) as error:
            ome_zarr.make(str(tmp_path / folder), **options)
        assert "\n" not in str(error.value)
    with pytest.raises(BadImage, match="its metadata hold no window"):
        image_of(ome_zarr.make(str(tmp_path / "deep"), window="omero"))


def test_prepare_packs_stacks(tmp_path):
    """To a spacing in mm, with the way back."""
    pytest.importorskip("array_record")
    stored = values("czyx", np.uint8, 256)
    save(tmp_path / "set/a", stored, "czyx")
    spec = f"ome_zarr({str(tmp_path / 'set')!r})"
    folder = prepare(spec, tmp_path, name="v", spacing=(0, 1e-3, 1e-3)).folder
    source = volume_records.make(str(folder))
    image = image_of(source)
    assert image.shape == (5, 6, 7, 3) and source.geometry(0).spacing == (2e-3, 1e-3, 1e-3)
    assert to_original(image, source.geometry(0)).shape == (5, 12, 14, 3)
