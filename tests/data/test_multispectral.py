"""Images of many bands: their names, windows and statistics, through transforms to the loss."""

import jax
import numpy as np
import pytest
from PIL import Image

from mae_jax.config import load_config
from mae_jax.data import make_data
from mae_jax.data.images import BadImage
from mae_jax.data.sources import multispectral, spectral_fields
from mae_jax.settings import make_evaluators, make_method
from mae_jax.spec import call_section
from mae_jax.types import UserError
from tests.helpers.dicoms import windowed

tifffile = pytest.importorskip("tifffile")
BANDS = ("B02", "B03", "B04", "B08", "B11")
VALUES = np.random.default_rng(0).integers(0, 5000, (6, 7, 5)).astype(np.uint16)
GRAY = {"photometric": "minisblack"}


def gdal(names, nodata=None):
    """The tags in which GDAL writes names of bands and a value for missing ones."""
    items = [
        f'<Item name="DESCRIPTION" sample="{n}" role="description">{name}</Item>'
        for n, name in enumerate(names)
    ]
    other = '<Item name="AREA_OR_POINT">Area</Item>'
    text = f"<GDALMetadata>{other}{''.join(items)}</GDALMetadata>"
    tags = [(42112, "s", 0, text, True)]
    return tags + ([(42113, "s", 0, str(nodata), True)] if nodata is not None else [])


def write(path, values, **options):
    """A file of samples or pages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, **GRAY, **options)


def read(source, index=0):
    """One image."""
    return source.read(np.array([index]))["image"][0]


def test_bands_are_found_wherever_they_are_named(tmp_path):
    """In samples and pages, compressed or not, by each of the names that programs write."""
    pages, planar = np.moveaxis(VALUES, 2, 0), dict(planarconfig="separate")
    write(tmp_path / "a.tif", VALUES, planarconfig="contig", extratags=gdal(BANDS))
    write(tmp_path / "b.tif", pages, **planar, extratags=gdal(BANDS), compression="zlib")
    metadata = {"axes": "CYX", "Channel": {"Name": list(BANDS)}}
    write(tmp_path / "c.ome.tif", pages, ome=True, metadata=metadata)
    metadata = {"axes": "CYX", "Labels": list(BANDS)}
    write(tmp_path / "d.tif", pages, imagej=True, metadata=metadata)
    write(tmp_path / "e.tif", pages, metadata={"bands": list(BANDS)})
    with tifffile.TiffWriter(tmp_path / "f.tif") as file:
        for name, page in zip(BANDS, pages):
            file.write(page, description=name, metadata=None, **GRAY)
    other = [4, 2, 0, 1, 3]  # another order
    names = [BANDS[n] for n in other]
    write(tmp_path / "g.tif", VALUES[..., other], planarconfig="contig", extratags=gdal(names))
    chosen = ("B11", "B02", "B08")
    window = ((0, 4000), (100, 3000), (0, 5000))
    source = multispectral.make(str(tmp_path), bands=chosen, window=window)
    exact = [windowed(VALUES[..., BANDS.index(b)], *w) for b, w in zip(chosen, window)]
    assert source.num_examples == 7 and source.notes[0] == "bands: B11, B02, B08"
    for index in range(7):
        found = read(source, index)
        assert found.shape == (6, 7, 3) and found.dtype == np.uint8
        np.testing.assert_array_equal(found, np.stack(exact, -1), source.name(index))
    whole = multispectral.make(str(tmp_path), window=(0, 5000))
    assert whole.bands == BANDS
    for index in range(7):
        np.testing.assert_array_equal(read(whole, index), windowed(VALUES, 0, 5000))
    half = multispectral.make(str(tmp_path), bands=("B03",), window=(0, 5000), dtype="float16")
    exact = (VALUES[..., 1:2] * (255 / 5000)).astype(np.float16)
    assert read(half).dtype == np.float16
    np.testing.assert_array_equal(read(half), exact)


def test_pages_written_one_by_one_are_bands(tmp_path):
    """With tifffile's defaults, by which each page is a series of its own."""
    for name, options in (("a", {}), ("b", {"compression": "zlib"})):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            for band, page in zip(BANDS, np.moveaxis(VALUES, 2, 0)):
                described = {"description": band} if name == "b" else {}
                file.write(page, **GRAY, **options, **described)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.series) == 5
    source = multispectral.make(str(tmp_path), window=(0, 5000))
    assert source.bands == () and not source.damaged
    for index in range(2):
        np.testing.assert_array_equal(read(source, index), windowed(VALUES, 0, 5000))
    chosen = dict(bands=("B08", "B02"), window=(0, 5000))
    found = multispectral.make(str(tmp_path), names=BANDS, **chosen)
    np.testing.assert_array_equal(read(found), windowed(VALUES[..., [3, 0]], 0, 5000))
    (tmp_path / "a.tif").unlink()
    named = multispectral.make(str(tmp_path), **chosen)
    np.testing.assert_array_equal(read(named), windowed(VALUES[..., [3, 0]], 0, 5000))


def test_names_from_the_spec_and_missing_values(tmp_path):
    values = VALUES.astype(np.float32)
    values[0, 0, 0], values[1, 1] = np.nan, -9999
    tags = gdal((), nodata=-9999)
    write(tmp_path / "x/a.tif", values, planarconfig="contig", extratags=tags)
    write(tmp_path / "y/b.tif", VALUES, planarconfig="contig", metadata=None)
    names = ("one", "two", "three", "four", "five")
    options = dict(names=names, bands=("four", "one"), window=(-20000, 20000))
    source = multispectral.make(str(tmp_path), **options)
    exact = windowed(np.nan_to_num(values[..., [3, 0]], nan=-20000), -20000, 20000)
    exact[1, 1] = 0
    np.testing.assert_array_equal(read(source, 0), exact)
    assert source.class_names == ("x", "y") and source.read([1])["label"] == [1]
    plain = multispectral.make(str(tmp_path), window=(0, 5000))
    assert plain.bands == () and read(plain, 1).shape == (6, 7, 5)
    with pytest.raises(UserError, match="does not name its 5 bands: give names=.*, all of them"):
        multispectral.make(str(tmp_path), bands=("one",), window=(0, 1))


def test_statistics_are_of_each_band(tmp_path):
    for n in range(3):
        write(tmp_path / f"{n}.tif", VALUES[: 4 + n] // (n + 1), planarconfig="contig")
    source = multispectral.make(str(tmp_path), window=(0, 5000))
    pixels = np.concatenate([read(source, n).reshape(-1, 5) for n in range(3)]) / 255
    np.testing.assert_allclose(source.statistics, (pixels.mean(0), pixels.std(0)), rtol=1e-6)


def test_files_that_do_not_fit_are_refused_one_by_one(tmp_path):
    write(tmp_path / "a.tif", VALUES, planarconfig="contig", extratags=gdal(BANDS))
    write(tmp_path / "b.tif", VALUES[..., 1:], planarconfig="contig", extratags=gdal(BANDS[1:]))
    write(tmp_path / "c.tif", VALUES, planarconfig="contig")
    write(tmp_path / "d.tif", np.zeros((2, 3, 6, 7, 5), np.uint16), metadata={"axes": "TZYXS"})
    (tmp_path / "e.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:99])
    source = multispectral.make(str(tmp_path), bands=("B02", "B03"), window=(0, 5000))
    assert [line.partition(":")[0] for line in source.damaged] == [f"{c}.tif" for c in "bcde"]
    assert "it has no band B02: its bands are B03, B04, B08, B11" in source.damaged[0]
    assert "only rows, columns and bands make an image" in source.damaged[2]
    with pytest.raises(BadImage, match="does not name its 5 bands"):
        source.read([2])
    options = dict(batch_size=4, train_transform="random_resized_crop(4)|flip", eval_transform="")
    spec = f"multispectral({str(tmp_path)!r}, bands=('B02', 'B03'), window=(0, 5000))"
    data = make_data(train=spec, on_error="skip", **options)
    assert next(data.train(0))["image"].shape == (4, 4, 4, 2) and data.skipped == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a.tif holds uint16 values, from .* to .*: give window="),
        ({"window": ((0, 1), (0, 2))}, "window has 2 pairs, and there are 5 channels"),
        ({"window": ((0, 1), (2, 1))}, r"multispectral: window \(2, 1\) should be"),
        ({"bands": "B02"}, "bands='B02' should be different names"),
        ({"bands": ("B02", "B02")}, "should be different names"),
        ({"bands": ("B99",), "names": BANDS}, "bands: 'B99' is none of names="),
        ({"bands": ("B99",), "window": (0, 1)}, "it has no band B99: its bands are B02"),
        ({"names": BANDS[1:], "window": (0, 1)}, "it has 5 bands, and names=.* are 4"),
        ({"dtype": "float16"}, "dtype='float16' needs a window"),
        ({"dtype": "int8"}, "dtype 'int8' is unknown: choose uint8, float16"),
    ],
)
def test_mistakes_are_named(tmp_path, options, message):
    write(tmp_path / "a.tif", VALUES, planarconfig="contig", extratags=gdal(BANDS))
    with pytest.raises(UserError, match=message) as error:
        multispectral.make(str(tmp_path), **options)
    assert "\n" not in str(error.value)


def test_transforms_resample_each_band_alone(tmp_path):
    """The result of a band does not depend on the others."""
    write(tmp_path / "a.tif", np.tile(VALUES, (4, 4, 1)), planarconfig="contig")
    chain = "random_resized_crop(8, scale=(0.3, 0.6))|flip(axes=(0, 1))"
    spec = f"multispectral({str(tmp_path)!r}, window=(0, 5000))"
    options = dict(batch_size=6, train_transform=chain, eval_transform="resize(12)|center_crop(8)")
    batch = next(make_data(train=spec, **options).train(0))["image"]
    assert batch.shape == (6, 8, 8, 5) and len(np.unique(batch[..., 0], axis=0)) > 1
    pixels = read(multispectral.make(str(tmp_path), window=(0, 5000)))
    for band in range(5):
        np.save(tmp_path / "one.npy", pixels[None, ..., band : band + 1])
        alone = f"array_file({str(tmp_path / 'one.npy')!r})"
        found = next(make_data(train=alone, **options).train(0))["image"]
        np.testing.assert_array_equal(batch[..., band : band + 1], found)
    resized = Image.fromarray(pixels[..., 4]).resize((14, 12), Image.Resampling.BICUBIC)
    exact = np.asarray(resized)[2:10, 3:11].astype(int)
    data = make_data(train=spec, **options)
    assert np.abs(next(data.eval("train"))["image"][0, ..., 4] - exact).max() <= 8


def test_fields_are_functions_of_their_index():
    source = spectral_fields.make(size=16, num_examples=50)
    rows = source.read(np.arange(50))
    again = spectral_fields.make(size=16, num_examples=9).read(np.array([8, 3]))
    for name, values in rows.items():
        np.testing.assert_array_equal(np.array(values)[[8, 3]], np.array(again[name]))
    images, covers = np.array(rows["image"]), np.array(rows["segmentation"])
    assert images.shape == (50, 16, 16, 8) and images.dtype == np.uint8
    assert sorted(set(rows["label"])) == list(range(5)) and source.class_names[0] == "water"
    for kind, name in enumerate(source.class_names):  # noise and light average out
        mean = images[covers == kind].mean(0) / 255 * 0.5
        exact = np.array(spectral_fields.REFLECTANCE[name])
        ratio = (mean / exact)[exact > 0.03]
        assert np.ptp(ratio) / ratio.mean() < 0.15 and 0.6 < ratio.mean() < 1.6
    test = spectral_fields.make(split="test", size=16, num_examples=1).read(np.array([0]))
    assert not np.array_equal(test["image"][0], images[0])
    for options, message in (
        (dict(split="val"), "spectral_fields: split 'val' is unknown"),
        (dict(size=4), "spectral_fields: size=4 should be an int from 8 to 256"),
    ):
        with pytest.raises(UserError, match=message):
            spectral_fields.make(**options)


@pytest.mark.parametrize("name", ["multispectral", "multispectral:FOLDER"])
def test_experiments_fit_their_data(tmp_path, name):
    """From files to the loss, which is traced and not computed."""
    write(tmp_path / "a.tif", np.tile(VALUES, (12, 12, 1)), planarconfig="contig")
    folder = name.partition(":")[2]
    config = load_config("configs/multispectral.py" + f":{tmp_path}" * bool(folder))
    data = call_section(make_data, config.data, "data")
    batch = next(data.train(0))
    assert batch["image"].shape[1:] == ((64, 64, 5) if folder else (32, 32, 8))
    args = {"mean": (0.4,) * batch["image"].shape[3], "std": (0.2,) * batch["image"].shape[3]}
    with config.ignore_type():
        config.method.args.update(args)
    method = call_section(make_method, config.method, "method", total_steps=10)
    shapes = jax.eval_shape(lambda: batch)
    params, extra = jax.eval_shape(method.init, jax.random.key(0), shapes)
    loss = jax.eval_shape(method.loss, params, extra, shapes, jax.random.key(0), 0).loss
    assert loss.shape == () and data.example("eval")["image"].shape == (
        1,
        *batch["image"].shape[1:],
    )
    make_evaluators(config.evals.run)
