"""Volumes in each kind of file: windows and what they leave, masks, memory, damaged files."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mae_jax.data import make_data
from mae_jax.data.images import BadImage
from mae_jax.data.sources import volume
from mae_jax.data.volume_geometry import to_original
from mae_jax.data.volume_windows import SAMPLE, Percentiles, percentiles, sampled
from mae_jax.spec import build
from mae_jax.types import UserError
from tests.helpers.dicoms import dataset, windowed, write
from tests.helpers.volumes import affine, hounsfield, nibabel, save_nifti, save_series, series

pydicom = pytest.importorskip("pydicom")
tifffile = pytest.importorskip("tifffile")
CT = (-200, 1075)  # five units a level: no ties to round
VALUES = hounsfield(5, 4, 6)
EXPECTED = windowed(VALUES.transpose(2, 1, 0), *CT)[..., None]


def read(source, index=0):
    """The whole image of one volume."""
    return source.read(np.array([index]))["image"][0].pixels()


def item(**fields):
    """A data set in a sequence."""
    data = pydicom.Dataset()
    for keyword, value in fields.items():
        setattr(data, keyword, value)
    return pydicom.Sequence([data])


def enhanced(data, order):
    """One enhanced multi-frame file of the slices of a series, in another order of frames."""
    frames = [pydicom.Dataset() for _ in data]
    for frame, n in zip(frames, order):
        frame.PlanePositionSequence = item(ImagePositionPatient=data[n].ImagePositionPatient)
        frame.PixelValueTransformationSequence = item(
            RescaleSlope=data[n].RescaleSlope, RescaleIntercept=data[n].RescaleIntercept
        )
    shared = pydicom.Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=data[0].ImageOrientationPatient)
    shared.PixelMeasuresSequence = item(PixelSpacing=data[0].PixelSpacing)
    shape = (len(data), data[0].Rows, data[0].Columns)
    pixels = np.frombuffer(b"".join(data[n].PixelData for n in order), np.uint16).reshape(shape)
    return dataset(
        pixels,
        SeriesInstanceUID="1.2.9",
        PerFrameFunctionalGroupsSequence=pydicom.Sequence(frames),
        SharedFunctionalGroupsSequence=pydicom.Sequence([shared]),
    )


def test_frames_of_an_enhanced_file_are_placed_one_by_one(tmp_path):
    order = [4, 0, 3, 5, 1, 2]
    write(tmp_path / "one.dcm", enhanced(series(VALUES, slopes=(1, 2)), order))
    source = volume.make(str(tmp_path), window=CT)
    np.testing.assert_array_equal(read(source), EXPECTED)
    back = to_original(source.volume(0).values(())[..., 0], source.geometry(0))
    np.testing.assert_array_equal(back, np.flip(VALUES, (0, 1)).T[order])
    part = source.read([0])["image"][0][2:4, 1:3, 2:]
    np.testing.assert_array_equal(part, EXPECTED[2:4, 1:3, 2:])


def test_echoes_at_the_same_positions_are_volumes_of_one_group(tmp_path):
    other = hounsfield(5, 4, 6, seed=1)
    data = [*series(VALUES, EchoTime="10", AcquisitionNumber="1")]
    data += series(other, EchoTime="20", AcquisitionNumber="1")
    save_series(tmp_path, data, seed=3)
    write(tmp_path / "dose", dose(VALUES))
    source = volume.make(str(tmp_path), window=CT)
    assert source.num_examples == 3 and len(set(map(source.name, range(3)))) == 3
    found = {source.name(n): read(source, n) for n in range(3)}
    both = [EXPECTED, windowed(other.transpose(2, 1, 0), *CT)[..., None]]
    echoes = [image for name, image in found.items() if name != "dose"]
    assert all(any(np.array_equal(a, b) for b in echoes) for a in both)
    np.testing.assert_array_equal(found["dose"], EXPECTED)
    assert sorted(source.groups().tolist()) == [0, 0, 1]


def dose(values):
    """A file of radiotherapy dose: frames at offsets along the normal."""
    data = series(values, SeriesInstanceUID="1.2.7")
    pixels = np.stack([np.frombuffer(one.PixelData, np.uint16) for one in data])
    pixels = pixels.reshape(len(data), data[0].Rows, data[0].Columns)
    fields = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    same = {name: data[0][name].value for name in (*fields, "RescaleIntercept", "RescaleSlope")}
    offsets = [str(3.0 * n) for n in range(len(data))]
    return dataset(pixels, SeriesInstanceUID="1.2.8", GridFrameOffsetVector=offsets, **same)


def test_white_may_be_the_lowest_value(tmp_path):
    save_series(tmp_path, series(VALUES, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(read(volume.make(str(tmp_path), window=CT)), 255 - EXPECTED)


def test_scaling_nan_and_float16(tmp_path, caplog):
    image = nibabel.Nifti1Image(np.zeros((5, 4, 6), np.int16), affine())
    image.header.set_slope_inter(0.5, -10)
    nibabel.save(image, tmp_path / "scaled.nii")
    data = bytearray((tmp_path / "scaled.nii").read_bytes())
    data[352:] = VALUES.tobytes(order="F")
    (tmp_path / "scaled.nii").write_bytes(data)
    holes = VALUES.astype(np.float32)
    holes[0, :2], holes[1, 0, 0], holes[2, 0, 0] = np.nan, np.inf, -np.inf
    save_nifti(tmp_path / "holes.nii.gz", holes, "LPS")
    source = volume.make(str(tmp_path), window=(-500, 400))
    scaled = np.float64(VALUES.transpose(2, 1, 0)) * 0.5 - 10
    np.testing.assert_array_equal(read(source, 1)[..., 0], windowed(scaled, -500, 400))
    for _ in range(2):  # reported once
        found = read(source, 0)[..., 0].T
    exact = windowed(np.nan_to_num(holes, nan=-500, posinf=400, neginf=-500), -500, 400)
    np.testing.assert_array_equal(found, exact)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("holes.nii.gz holds NaN (12 voxels here), read as the lower end of the")
    half = volume.make(str(tmp_path), window=(-500, 400), dtype="float16")
    found = read(half, 1)[..., 0]
    assert found.dtype == np.float16 and half.read([1])["image"][0].dtype == np.float16
    exact = np.clip((scaled + 500) / 900, 0, 1) * 255
    np.testing.assert_array_equal(found, exact.astype(np.float16))


def test_percentiles_are_of_the_foreground(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(400, 120, (9, 10, 11)).astype(np.int16)
    values[:2] = values[:, :, -3:] = values[:, :1] = -7  # air
    for codes in ("RAS", "PIR"):
        save_nifti(tmp_path / f"{codes}.nii", values, codes)
    source = build(f"volume({str(tmp_path)!r}, window='percentiles(2, 97.5)')", "data.sources")
    low, high = np.percentile(values[values != -7].astype(np.float64), (2, 97.5))
    expected = windowed(values.T, low, high)[..., None]
    for index in (0, 1):
        np.testing.assert_allclose(source.window(index), (low, high))
        np.testing.assert_array_equal(read(source, index), expected)
    noise = rng.normal(size=(4, 5, 6, 1))  # no value fills the border
    noise[1, 2, 3] = np.nan
    found = percentiles(noise, Percentiles(10, 90))
    np.testing.assert_allclose(found, np.nanpercentile(noise, (10, 90)))
    for flat in (np.zeros((3, 3, 3, 1)), np.pad(np.ones((1, 1, 1, 1)), ((1, 1),) * 3 + ((0, 0),))):
        with pytest.raises(BadImage, match="its percentiles 10 and 90 are both|are background"):
            percentiles(flat, Percentiles(10, 90))
    assert sampled((160, 160, 160)) == (slice(None, None, 1),) * 3
    space = (400, 512, 511)
    (step,) = {part.step for part in sampled(space)}
    count = lambda k: np.prod([len(range(0, n, k)) for n in space])
    assert count(step) <= SAMPLE < count(step - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "slice 3 of 1.nii holds int16 values, from .* to .*: give window="),
        ({"window": (3, 1)}, r"volume: window \(3, 1\) should be \(low, high\)"),
        ({"window": "percentiles(9)"}, "window 'percentiles.9.' should be .low, high. or 'percen"),
        ({"window": "percentiles(99, 1)"}, "with 0 <= low < high <= 100, such as"),
        ({"window": "brain"}, "window 'brain' should be"),
        ({"dtype": "float16"}, "dtype='float16' needs a window"),
        ({"window": CT, "dtype": "int8"}, "volume: dtype 'int8' is unknown: choose uint8, float16"),
        ({"window": CT, "masks": "nowhere"}, "volume: there is no folder 'nowhere'"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    save_nifti(tmp_path / "1.nii", VALUES, "RAS")
    with pytest.raises(UserError, match=message) as error:
        volume.make(str(tmp_path), **options)
    assert "\n" not in str(error.value)


def test_stacks_of_pages_and_arrays(tmp_path):
    """Uncompressed, compressed, with channels before and after the pages, and .npy."""
    values = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3)).astype(np.uint8)
    gray, first = values[..., 0], np.moveaxis(values, 3, 1)
    kinds = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", gray, **kinds)
    tifffile.imwrite(tmp_path / "b.tif", gray, compression="zlib", **kinds)
    tifffile.imwrite(tmp_path / "c.tif", values, photometric="rgb", compression="zlib")
    tifffile.imwrite(tmp_path / "d.tif", first, imagej=True, metadata={"axes": "ZCYX"})
    for name, compression in (("e", None), ("f", "zlib")):
        stored = np.moveaxis(values, 3, 0)
        options = dict(ome=True, metadata={"axes": "CZYX"}, compression=compression)
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", stored, **options, **kinds)
    np.save(tmp_path / "g.npy", gray)
    np.save(tmp_path / "h.npy", values)
    tifffile.imwrite(tmp_path / "i.tif", gray, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "single.tif", gray[0])
    source = volume.make(str(tmp_path))
    assert [source.name(n)[0] for n in range(source.num_examples)] == list("abcdefghi")
    for index in range(source.num_examples):
        exact = gray[..., None] if index in (0, 1, 6, 8) else values
        exact = 255 - exact if index == 8 else exact
        image = source.read([index])["image"][0]
        np.testing.assert_array_equal(image.pixels(), exact, source.name(index))
        np.testing.assert_array_equal(image[1:4, 2:3, 4:6], exact[1:4, 2:3, 4:6])
        assert source.geometry(index).orientation == "SAR" and not source.geometry(index).placed
    assert any("1 TIFF of a single page, e.g. single.tif" in note for note in source.notes)


def test_masks_move_with_volumes(tmp_path):
    labels = (VALUES > 300).astype(np.uint8) + (VALUES > 900)
    for name, codes in (("a", "RAS"), ("b", "LPS")):
        save_nifti(tmp_path / f"images/{name}.nii", VALUES, codes)
        save_nifti(tmp_path / f"masks/{name}.nii", labels, "PIR")
    spec = f"volume({str(tmp_path / 'images')!r}, window={CT}, masks={str(tmp_path / 'masks')!r})"
    data = make_data(
        train=spec,
        batch_size=8,
        train_transform="random_crop((3, 2, 4))|flip",
        eval_transform="center_crop((6, 4, 4))",
        fields=("segmentation",),
    )
    batch = next(data.train(0))
    image, found = batch["image"][..., 0], batch["segmentation"]
    assert image.shape == found.shape == (8, 3, 2, 4) and found.dtype == np.int32
    low, high = windowed([301, 901], *CT)
    np.testing.assert_array_equal(found, (image >= low).astype(int) + (image >= high))
    assert len(np.unique(image.reshape(8, -1), axis=0)) > 4
    moved = affine()
    moved[0, 3] += 1
    save_nifti(tmp_path / "masks/a.nii", labels, "RAS", placed=moved)
    save_nifti(tmp_path / "masks/b.nii", labels[1:], "RAS")
    source = build(spec, "data.sources")
    for index, message in (
        (0, "up to 1 mm away from the volume: save both"),
        (1, "mask is .6, 4,"),
    ):
        with pytest.raises(BadImage, match=message):
            source.read([index])


def test_a_crop_reads_its_part_only(tmp_path):
    """Of a volume of 4 GB, all hole but for a voxel, in a file turned to LPS."""
    header, side = nibabel.Nifti1Header(), 1260
    header.set_data_dtype(np.int16)
    header.set_data_shape((side,) * 3)
    header.set_sform(np.diag([-1.0, -1, 1, 1]), 1)
    header["vox_offset"] = 352
    with (tmp_path / "1.nii").open("wb") as file:
        header.write_to(file)
        file.truncate(352 + 2 * side**3)
        file.seek(-2, 2)
        file.write(b"\x07\x00")
    source = volume.make(str(tmp_path), window=(0, 255))
    assert source.geometry(0).orientation == "LPS"
    tracemalloc.start()
    part = source.read([0])["image"][0][side - 16 :, :96, :96]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert part.shape == (16, 96, 96, 1) and part[-1, 0, 0] == 7 and part.sum() == 7
    assert peak < 16 * 2**20


@pytest.mark.parametrize("name", ["1.nii", "1.nii.gz", "1.mgz"])
def test_damaged_files(tmp_path, name):
    kind = "MGHImage" if name.endswith("mgz") else "Nifti1Image"
    values = np.random.default_rng(0).integers(0, 3000, (20, 20, 9)).astype(np.int16)
    save_nifti(tmp_path / name, values, "LPS", kind)
    whole = volume.make(str(tmp_path), window=CT)
    np.testing.assert_array_equal(read(whole), windowed(values.T, *CT)[..., None])
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises((BadImage, UserError)) as error:  # a .mgz ends in a part of its header
        read(volume.make(str(tmp_path), window=CT))
    assert str(error.value) and "\n" not in str(error.value)
    (tmp_path / name).write_bytes(b"no volume")
    with pytest.raises(UserError, match=f"cannot read .*{name}: .*; repair or remove it"):
        volume.make(str(tmp_path), window=CT)


def test_orientations_that_are_unknown_are_counted(tmp_path):
    image = nibabel.AnalyzeImage(VALUES, np.diag([-2.0, 2, 2, 1]))
    nibabel.save(image, tmp_path / "1.img")
    source = volume.make(str(tmp_path), window=CT)
    assert "no orientation in the header (sform and qform are 0, or Analyze)" in source.notes[0]
    np.testing.assert_array_equal(read(source), EXPECTED[:, :, ::-1])


@pytest.mark.thorough
def test_every_file_of_the_readers_own_tests(tmp_path, capsys):
    """Read, left out or refused in one line; never another error."""
    roots = {
        "pydicom": Path(pydicom.__file__).parent / "data" / "test_files",
        "nibabel": Path(nibabel.__file__).parent / "tests" / "data",
    }
    for package, root in roots.items():
        source = volume.make(str(root), window="percentiles(0.5, 99.5)")
        refused = list(source.damaged)
        count = 0
        for index in range(source.num_examples):
            try:
                image = source.read([index])["image"][0].pixels()
                assert image.dtype == np.uint8 and image.ndim == 4
                back = to_original(image, source.geometry(index))
                assert back.shape[:3] == source.geometry(index).shape
                count += 1
            except BadImage as error:
                if f"{source.name(index)}: {error}" not in refused:
                    refused.append(f"{source.name(index)}: {error}")
        assert all("\n" not in line for line in refused)
        with capsys.disabled():
            print(f"\n{package}: {count} read, {len(refused)} refused")
            print("\n".join([*source.notes, *refused[:8]]))
        assert count
