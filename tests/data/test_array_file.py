"""Images in .npy and .npz files: pixels, labels, and what goes wrong with them."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mae_jax.data.sources import array_file
from mae_jax.spec import build
from mae_jax.types import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 7, 3), np.uint8)
DEEP = RNG.integers(100, 5000, (6, 5, 7), np.uint16)
LABELS = np.array([2, 0, 1, 2, 0, 1])


def saved(folder, name="images.npy", array=IMAGES, **arrays):
    """Writes an .npy of one array, or an .npz of several; returns its path."""
    path = folder / name
    np.savez(path, **arrays) if arrays else np.save(path, array)
    return str(path)


def windowed(values, low, high):
    """What a window should make of values, before rounding."""
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255


def test_bytes_stay_as_they_are(tmp_path):
    source = array_file.make(saved(tmp_path))
    assert source.num_examples == 6 and source.class_names == ()
    fields = source.read(np.array([4, 0, 4]))
    assert fields.keys() == {"image"}
    np.testing.assert_array_equal(fields["image"], IMAGES[[4, 0, 4]])
    assert all(image.dtype == np.uint8 for image in fields["image"])
    assert source.name(4) == "images.npy[4]"


def test_it_is_found_by_its_name(tmp_path):
    images, labels = saved(tmp_path), saved(tmp_path, "labels.npy", LABELS)
    source = build(f"array_file({images!r}, labels={labels!r})", "data.sources")
    assert source.read(np.array([0, 3]))["label"] == [2, 2]
    assert source.class_names == ("0", "1", "2")


def test_a_missing_channel_is_added(tmp_path):
    source = array_file.make(saved(tmp_path, array=IMAGES[..., 0]))
    np.testing.assert_array_equal(source.read(np.arange(6))["image"], IMAGES[..., :1])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64, ">u2", bool])
def test_other_types_go_through_a_window(tmp_path, dtype):
    values = (DEEP > 2000) if dtype is bool else DEEP.astype(dtype)
    window = (0, 1) if dtype is bool else (1000, 4000.5)
    source = array_file.make(saved(tmp_path, array=values), window=window)
    found = np.stack(source.read(np.arange(6))["image"])
    assert (found.shape, found.dtype) == ((6, 5, 7, 1), np.uint8)
    assert np.abs(found[..., 0] - windowed(values, *window)).max() < 0.501
    assert found.min() == 0 and found.max() == 255


def test_a_window_also_stretches_bytes(tmp_path):
    source = array_file.make(saved(tmp_path), window=(50, 100))
    found = np.stack(source.read(np.arange(6))["image"])
    assert np.abs(found - windowed(IMAGES, 50, 100)).max() < 0.501


@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite(tmp_path):
    values = np.array([np.nan, -np.inf, np.inf, 0.5]).reshape(1, 2, 2)
    image = array_file.make(saved(tmp_path, array=values), window=(0, 1)).read([0])["image"][0]
    assert image.ravel().tolist() == [0, 0, 255, 128]


def test_large_integers_are_not_rounded_to_single_precision(tmp_path):
    values = (2**30 + np.arange(256, dtype=np.int32)).reshape(1, 16, 16)
    source = array_file.make(saved(tmp_path, array=values), window=(2**30, 2**30 + 255))
    np.testing.assert_array_equal(source.read([0])["image"][0].ravel(), np.arange(256))


def test_an_npz_with_labels(tmp_path):
    path = saved(tmp_path, "set.npz", x=IMAGES, y=LABELS.astype(np.uint8), other=DEEP)
    source = array_file.make(path, image="x", label="y")
    fields = source.read(np.array([5, 1]))
    np.testing.assert_array_equal(fields["image"], IMAGES[[5, 1]])
    assert fields["label"] == [1, 0] and source.name(5) == "set.npz[5]"
    assert array_file.make(path, image="x").class_names == ()
    deep = array_file.make(path, image="other", window=(0, 5000))
    assert deep.read([0])["image"][0].shape == (5, 7, 1)


def test_an_npy_is_not_loaded_whole(tmp_path):
    """A file of 64 GiB, all hole, opens at once and gives its last image."""
    shape = (2**16, 1024, 1024)
    path = tmp_path / "images.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)[-1] = 7
    source = array_file.make(str(path))
    assert source.num_examples == 2**16
    assert (source.read([2**16 - 1])["image"][0] == 7).all()


def test_images_can_be_changed_by_who_reads_them(tmp_path):
    source = array_file.make(saved(tmp_path))
    image = source.read([0])["image"][0]
    image[:] = 0
    np.testing.assert_array_equal(source.read([0])["image"][0], IMAGES[0])


def test_threads_read_the_same(tmp_path):
    source = array_file.make(saved(tmp_path, array=DEEP), window=(0, 5000))
    expected = source.read(np.arange(6))["image"]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: source.read(np.arange(6))["image"], range(50)):
            np.testing.assert_array_equal(found, expected)


def test_the_digest_follows_the_content(tmp_path):
    def digest(images, labels=LABELS):
        paths = saved(tmp_path, array=images), saved(tmp_path, "labels.npy", labels)
        return array_file.make(paths[0], labels=paths[1]).digest

    large = np.zeros((6, 1000, 1000), np.uint8)
    last, first = large.copy(), large.copy()
    last[-1, -1, -1], first[0, 0, 0] = 1, 1
    digests = [
        digest(large),
        digest(last),
        digest(first),
        digest(large[:, :999]),
        digest(large, LABELS[::-1]),
    ]
    assert len(set(digests)) == 5 and all(len(text) == 16 for text in digests)
    assert digest(large) == digests[0]


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (DEEP, {}, r"\(6 of its 6 images looked at\) holds uint16 values, from 1\d\d to 4\d\d\d: "),
        (DEEP, {}, r"give window=\(low, high\), the values that become 0 and 255"),
        (np.full((2, 3, 3), np.nan), {}, "holds float64 values, none of them finite: give window"),
        (IMAGES.astype(np.int8), {}, "holds int8 values"),
        (IMAGES > 9, {}, "holds bool values, from 0 to 1: give window"),
        (IMAGES.astype(complex), {"window": (0, 1)}, "complex128 values: save them as integers"),
        (IMAGES[0, 0], {}, r"have shape \(7, 3\): it should be \[N, H, W, C\], or \[N, H, W\]"),
        (IMAGES[None], {}, r"have shape \(1, 6, 5, 7, 3\)"),
        (IMAGES[:0], {}, r"have shape \(0, 5, 7, 3\): .* not empty"),
        (IMAGES, {"image": "x"}, "image='x' names an array of an .npz, and .* is an .npy: leave"),
        (IMAGES, {"label": "y"}, "label='y' names an array of an .npz"),
        (IMAGES, {"labels": "nothing.npy"}, "cannot read 'nothing.npy': .*No such file"),
        (DEEP, {"window": (5, 5)}, r"window \(5, 5\) should be \(low, high\), two numbers in asc"),
        (DEEP, {"window": 4000}, "window 4000 should be"),
        (DEEP, {"window": (1, 2, 3)}, r"window \(1, 2, 3\) should be"),
        (DEEP, {"window": (0, float("nan"))}, r"window \(0, nan\) should be"),
        (DEEP, {"window": ("0", "9")}, r"window \('0', '9'\) should be"),
    ],
)
def test_wrong_images_are_explained(tmp_path, array, options, message):
    with pytest.raises(UserError, match=message) as error:
        array_file.make(saved(tmp_path, array=array), **options)
    assert str(error.value).startswith("array_file: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:5], r"have shape \(5,\): its 6 images need \(6,\)"),
        (LABELS[:, None], r"have shape \(6, 1\): its 6 images need"),
        (LABELS.astype(float), "are of type float64: save them as integers"),
        (np.array(list("abcdef")), "are of type <U1: save them as integers"),
        (LABELS - 1, "label -1 of example 1 of .*images.npy is invalid: number classes from 0"),
        (LABELS * 10**6, "label 2000000 of example 0 of .* from 0 to at most 999999"),
    ],
)
def test_wrong_labels_are_explained(tmp_path, labels, message):
    path = saved(tmp_path, "labels.npy", labels)
    with pytest.raises(UserError, match=message):
        array_file.make(saved(tmp_path), labels=path)
    with pytest.raises(UserError, match=message.replace("images.npy", "set.npz")):
        archive = saved(tmp_path, "set.npz", x=IMAGES, y=labels)
        array_file.make(archive, image="x", label="y")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "set.npz is an .npz: give image=...; it holds x, y"),
        ({"image": "z"}, "set.npz has no array 'z'; it holds x, y"),
        ({"image": "x", "label": "labels"}, "has no array 'labels'; it holds x, y"),
        ({"image": "x", "labels": "y.npy"}, "labels='y.npy' is for an .npy, and .* label=..."),
        ({"image": "y"}, r"have shape \(6,\)"),
    ],
)
def test_wrong_names_in_an_npz_are_explained(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        array_file.make(saved(tmp_path, "set.npz", x=IMAGES, y=LABELS), **options)


def test_labels_in_an_npz_of_their_own(tmp_path):
    path = saved(tmp_path, "labels.npz", y=LABELS)
    with pytest.raises(UserError, match="labels='.*labels.npz' is an .npz: give an .npy with one"):
        array_file.make(saved(tmp_path), labels=path)


@pytest.mark.parametrize("content", [b"", b"no array", "objects", "half"])
def test_unreadable_files_are_explained(tmp_path, content):
    path = saved(tmp_path)
    if content == "objects":
        np.save(path, np.array([{}, []], object))
    else:
        data = (tmp_path / "images.npy").read_bytes()
        (tmp_path / "images.npy").write_bytes(data[:300] if content == "half" else content)
    message = f"array_file: cannot read {path!r}: .*; give a file that numpy.save or numpy.savez"
    with pytest.raises(UserError, match=message) as error:
        array_file.make(path)
    assert "\n" not in str(error.value)


def test_damage_inside_an_npz(tmp_path):
    path = tmp_path / "set.npz"
    saved(tmp_path, "set.npz", x=IMAGES)
    data = path.read_bytes()
    path.write_bytes(data.replace(IMAGES[2].tobytes(), IMAGES[3].tobytes()))
    with pytest.raises(UserError, match=f"cannot read 'x' of {re.escape(str(path))}: Bad CRC"):
        array_file.make(str(path), image="x")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cannot read '.*set.npz': "):
        array_file.make(str(path), image="x")


def test_channels_that_may_be_first_are_reported(tmp_path):
    first = array_file.make(saved(tmp_path, array=np.zeros((9, 3, 16, 20), np.uint8)))
    assert "3 x 16 pixels and 20 channels" in first.notes[0] and "moveaxis" in first.notes[0]
    assert not array_file.make(saved(tmp_path)).notes
    assert not array_file.make(saved(tmp_path, array=np.zeros((9, 16, 3, 20), np.uint8))).notes
