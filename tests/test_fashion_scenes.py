"""The embedded data set: the same scenes for ever, exact annotations, honest splits."""

import pathlib
import zlib

import numpy as np
import pytest
from PIL import Image

import mae_jax.data
from mae_jax.data.sources import fashion_scenes
from mae_jax.types import UserError

ASSETS = pathlib.Path(mae_jax.data.__file__).parent / "fashion_scenes_assets"
FIELDS = {"image", "label", "value", "segmentation", "box"}


@pytest.fixture(scope="module", params=["train", "test"])
def split(request):
    return request.param


@pytest.fixture(scope="module")
def tiny():
    """Every default scene of both splits, at the smallest size."""
    return {split: fashion_scenes.make(split=split, size=16) for split in fashion_scenes.SPLITS}


def test_shapes_types_and_names(split):
    source = fashion_scenes.make(split=split, size=40, num_examples=7)
    fields = source.arrays
    assert set(fields) == FIELDS
    assert (fields["image"].shape, fields["image"].dtype) == ((7, 40, 40, 3), np.uint8)
    assert (fields["label"].shape, fields["label"].dtype) == ((7,), np.int32)
    assert (fields["segmentation"].shape, fields["segmentation"].dtype) == ((7, 40, 40), bool)
    assert (fields["box"].shape, fields["box"].dtype) == ((7, 4), np.float32)
    assert source.num_examples == 7
    assert source.class_names[0] == "T-shirt/top" and len(set(source.class_names)) == 10


# If a checksum moves, scenes changed: every figure measured on this data set is void.
@pytest.mark.parametrize(
    ("split", "size", "image", "segmentation"),
    [
        ("train", 32, 0xD1119AF5, 0xDF3A9EF4),
        ("train", 64, 0xBF32CDDB, 0x08F8C7E0),
        ("test", 32, 0x1E0BFC7D, 0xEF580EDD),
        ("test", 64, 0xC4F0853E, 0x2F8FCC0B),
    ],
)
def test_scenes_never_change(split, size, image, segmentation):
    fields = fashion_scenes.make(split=split, size=size, num_examples=100).arrays
    found = [zlib.crc32(fields[name].tobytes()) for name in ("image", "segmentation")]
    assert found == [image, segmentation]


def test_a_scene_depends_on_seed_split_and_index_alone(split):
    few = fashion_scenes.make(split=split, num_examples=5, seed=3).arrays
    more = fashion_scenes.make(split=split, num_examples=300, seed=3).arrays
    other = fashion_scenes.make(split=split, num_examples=5, seed=4).arrays
    for name in FIELDS:
        np.testing.assert_array_equal(few[name], more[name][:5])
    np.testing.assert_array_equal(few["label"], other["label"])
    assert all((a != b).any() for a, b in zip(few["image"], other["image"]))
    assert len({scene.tobytes() for scene in more["image"]}) == 300


def test_garments_come_again_in_other_compositions(tiny):
    first = tiny["test"].arrays
    again = fashion_scenes.make(split="test", size=16, num_examples=2010).arrays
    np.testing.assert_array_equal(again["image"][:2000], first["image"])
    np.testing.assert_array_equal(again["label"][2000:], first["label"][:10])
    assert all((a != b).any() for a, b in zip(again["image"][2000:], first["image"]))


def test_size_only_sets_the_sampling(split):
    small = fashion_scenes.make(split=split, size=32, num_examples=100).arrays
    large = fashion_scenes.make(split=split, size=64, num_examples=100).arrays
    reduced = np.stack([np.asarray(Image.fromarray(image).reduce(2)) for image in large["image"]])
    error = np.abs(reduced.astype(float) - small["image"]).mean((1, 2, 3))
    assert error.max() < 8, "of 255; another scene differs by 24 at least"
    assert np.abs(small["box"] - large["box"]).max() <= 2 / 32
    np.testing.assert_array_equal(small["label"], large["label"])


def test_segmentation_is_where_garments_cover_the_photograph(monkeypatch):
    """White garments on black photographs show the opacity itself: the mask is its upper half."""
    scenes = fashion_scenes.make(num_examples=200, size=48).arrays
    monkeypatch.setattr(fashion_scenes, "_BRIGHTNESS", (0.0, 0.0))
    monkeypatch.setattr(fashion_scenes, "_TINT", (1.0, 1.0))
    monkeypatch.setattr(fashion_scenes, "_SHADING", (0.0, 0.0))
    opacity = fashion_scenes.make(num_examples=200, size=48).arrays["image"][..., 0]
    np.testing.assert_array_equal(scenes["segmentation"], opacity >= 128)
    assert 0.5 < (opacity == 0).mean() < 0.9 and (opacity == 255).mean() > 0.1
    assert scenes["image"][opacity == 0].std() > 30, "photographs show around the garments"


@pytest.mark.parametrize("size", [16, 32, 50])
def test_boxes_are_the_extents_of_the_masks(split, size):
    fields = fashion_scenes.make(split=split, size=size, num_examples=200).arrays
    for mask, box in zip(fields["segmentation"], fields["box"]):
        y, x = np.nonzero(mask)
        expected = [y.min() / size, x.min() / size, (y.max() + 1) / size, (x.max() + 1) / size]
        np.testing.assert_array_equal(box, np.float32(expected))


def test_every_default_scene_shows_its_garment(tiny, split):
    covered = tiny[split].arrays["segmentation"].mean((1, 2))
    assert 0.01 < covered.min() and covered.max() < 0.85


def test_every_ten_scenes_hold_each_class_once(tiny, split):
    assert tiny[split].num_examples == {"train": 12_000, "test": 2_000}[split]
    tens = tiny[split].arrays["label"].reshape(-1, 10)
    np.testing.assert_array_equal(np.sort(tens, 1), np.tile(np.arange(10), (len(tens), 1)))
    assert len(np.unique(tens, axis=0)) > 100, "and not in one fixed order"


def test_splits_share_no_garment_and_no_photograph():
    with np.load(ASSETS / "ingredients.npz") as arrays:
        garments = [
            {garment.tobytes() for garment in arrays[f"{split}/garments"]}
            for split in fashion_scenes.SPLITS
        ]
        photographs = [
            {arrays[name].tobytes() for name in arrays.files if name.startswith(f"{split}/photo")}
            for split in fashion_scenes.SPLITS
        ]
    assert [len(garment) for garment in garments] == [12_000, 2_000]
    assert [len(photograph) for photograph in photographs] == [12, 4]
    assert garments[0].isdisjoint(garments[1]) and photographs[0].isdisjoint(photographs[1])


def test_assets_are_small_and_every_photograph_is_credited():
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) <= 8 * 2**20
    credits = (ASSETS / "SOURCES.md").read_text()
    with np.load(ASSETS / "ingredients.npz") as arrays:
        names = [name.split("/")[-1] for name in arrays.files if "/photographs/" in name]
    rows = [line for line in credits.splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(names)
    for row in rows:
        assert row.split("|")[4].strip() in ("CC-BY-4.0", "CC0-1.0", "public domain")
    for licence in ("CC-BY-4.0", "CC0-1.0", "MIT-Fashion-MNIST"):
        assert (ASSETS / "LICENSES" / f"{licence}.txt").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, "no split 'validation': use one of train, test"),
        ({"size": 15}, "size=15: use an int from 16 to 4096"),
        ({"size": 32.0}, "size=32.0: use an int from 16 to 4096"),
        ({"size": (32, 32)}, r"size=\(32, 32\): use an int from 16 to 4096"),
        ({"num_examples": 0}, "num_examples=0: use an int >= 1"),
        ({"num_examples": 1.5}, "num_examples=1.5: use an int >= 1"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        fashion_scenes.make(**options)
    assert "\n" not in str(error.value)


def test_pixels_tell_something_of_the_class_but_not_much(tiny):
    """Ridge regression is above chance (0.1) on new scenes, and far below what CNNs reach."""
    train, test = ({n: tiny[split].arrays[n][:3000] for n in FIELDS} for split in ("train", "test"))
    inputs = [fields["image"].reshape(len(fields["image"]), -1) / 255.0 for fields in (train, test)]
    inputs = [pixels - inputs[0].mean(0) for pixels in inputs]
    targets = np.eye(10)[train["label"]] - 0.1
    gram = inputs[0].T @ inputs[0] + 100 * np.eye(inputs[0].shape[1])
    predicted = (inputs[1] @ np.linalg.solve(gram, inputs[0].T @ targets)).argmax(1)
    assert 0.18 < (predicted == test["label"]).mean() < 0.5
