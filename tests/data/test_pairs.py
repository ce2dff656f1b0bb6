"""Image and label folders: matching, what the numbers mean, and what is refused."""

import io
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data, open_sources
from mae_jax.data.class_ids import ClassIds
from mae_jax.data.fields import IGNORE
from mae_jax.data.images import BadImage, decode_mask
from mae_jax.data.sources import pairs
from mae_jax.data.transforms import make_transforms
from mae_jax.spec import check_spec
from mae_jax.types import UserError
from tests.data.test_orientation import TURNS, file_of, transposed

RNG = np.random.default_rng(0)


@pytest.fixture
def folders(tmp_path):
    """Adds images and labels; the folders of both."""

    class Folders:
        images, labels = str(tmp_path / "images"), str(tmp_path / "labels")

        def image(self, name, shape=(6, 9)):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 256, (*shape, 3), np.uint8)).save(path)

        def label(self, name, values, **options):
            path = tmp_path / "labels" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image = values if isinstance(values, Image.Image) else Image.fromarray(values)
            image.save(path, **options)

        def pair(self, values, name="a"):
            self.image(f"{name}.png", np.shape(values)[:2])
            self.label(f"{name}.png", values)

        def make(self, **options):
            return pairs.make(self.images, self.labels, **options)

    return Folders()


def label_of(count=4, shape=(6, 9), dtype=np.uint8):
    values = RNG.integers(0, count, shape).astype(dtype)
    values[0, :count] = np.arange(count)
    return values


def read(source, index=0):
    return source.read(np.array([index]))["segmentation"][0]


def test_files_are_matched_by_their_names(folders):
    masks = {}
    for name in ("b", "town/a", "town/c.d"):
        masks[name] = label_of()
        folders.image(f"{name}.jpg")
        folders.label(f"{name}.png", masks[name])
    folders.image("town/e.jpg")  # without a label
    for name in "xyzvw":
        folders.label(f"town/{name}.png", label_of())
    folders.label("notes.jpg", label_of())
    source = folders.make(classes=4)
    assert [source.name(i) for i in range(3)] == ["b.jpg", "town/a.jpg", "town/c.d.jpg"]
    for i, mask in enumerate(masks.values()):
        found = read(source, i)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, mask)
    assert source.names == {"segmentation": ("0", "1", "2", "3")}
    notes = "\n".join(source.notes)
    assert "left out 1 image without a label: town/e.jpg\n" in notes
    assert "left out 5 labels without an image: town/v, town/w, town/x and 2 more\n" in notes
    assert "labels: left out 1 file of other kinds: .jpg 1" in notes
    assert "labels are those of the images as turned upright (annotated=upright)" in notes
    assert "no classes" not in notes
    before = source.digest
    folders.image("town/v.jpg")
    assert folders.make(classes=4).digest != before


def test_suffixes_as_in_cityscapes(folders):
    numbers = np.array([[7, 8, 0, 33], [255, 1, 26, 34]], np.uint8)
    folders.image("ulm/ulm_000_leftImg8bit.png", (2, 4))
    folders.label("ulm/ulm_000_gtFine_labelIds.png", numbers)
    folders.label("ulm/ulm_000_gtFine_color.png", np.zeros((2, 4, 4), np.uint8))
    suffixes = ("_leftImg8bit", "_gtFine_labelIds")
    source = folders.make(ids="cityscapes", suffixes=suffixes)
    assert source.num_examples == 1 and not [n for n in source.notes if "without" in n]
    expected = [[0, 1, IGNORE, 18], [IGNORE, IGNORE, 13, IGNORE]]
    np.testing.assert_array_equal(read(source), expected)
    names = source.names["segmentation"]
    assert (len(names), names[0], names[13], names[18]) == (19, "road", "car", "bicycle")
    source = folders.make(ids={7: 0, 8: 1}, suffixes=suffixes)
    np.testing.assert_array_equal(
        read(source), np.where(numbers == 7, 0, np.where(numbers == 8, 1, 255))
    )
    assert source.names == {"segmentation": ("0", "1")}


def test_images_and_labels_in_one_folder(tmp_path):
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / "a.jpg")
    Image.fromarray(np.eye(3, 4, dtype=np.uint8)).save(tmp_path / "a_mask.png")
    source = pairs.make(str(tmp_path), str(tmp_path), classes=2, suffixes=("", "_mask"))
    np.testing.assert_array_equal(read(source), np.eye(3, 4))
    assert not [note for note in source.notes if "without" in note]


def test_listed_examples_as_in_voc(folders, tmp_path):
    for name in "abcd":
        folders.image(f"{name}.png")
    for name in "bce":
        folders.label(f"{name}.png", label_of())
    (tmp_path / "train.txt").write_text("c\n\nd \nz\n")
    source = folders.make(classes=4, listed=str(tmp_path / "train.txt"))
    assert [source.name(i) for i in range(source.num_examples)] == ["c.png"]
    notes = "\n".join(source.notes)
    assert "left out 1 image without a label: d.png" in notes
    assert "left out 1 listed name without an image: z" in notes and "labels with" not in notes


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_are_read_as_numbers(folders, bits):
    values = label_of(min(2**bits, 21), (6, 30))
    values[0, 0] = IGNORE if bits == 8 else 0
    picture = Image.fromarray(values).copy()
    picture.putpalette(RNG.integers(0, 256, 768).astype(np.uint8).tolist())
    folders.image("a.png", (6, 30))
    folders.label("a.png", picture, bits=bits)
    np.testing.assert_array_equal(read(folders.make(classes=21)), values)


def grey_png(values, bits):
    """A grey PNG of 1, 2 or 4 bits a pixel, which Pillow does not write: made from a palette's."""
    file = io.BytesIO()
    picture = Image.fromarray(values)
    picture.putpalette([0] * 3 * 2**bits)
    picture.save(file, "PNG", bits=bits)
    data = bytearray(file.getvalue())
    data[25] = 0  # the type of color, and its checksum
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    start = data.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    return bytes(data[:start] + data[end:])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_not_stretched(bits):
    values = label_of(2**bits, (5, 16))
    np.testing.assert_array_equal(decode_mask(grey_png(values, bits)), values)


def test_numbers_of_16_bits(folders):
    folders.pair(np.array([[1001, 65535, 7]], np.uint16))
    np.testing.assert_array_equal(read(folders.make(ids={1001: 1, 65535: 0})), [[1, 0, IGNORE]])
    with pytest.raises(
        BadImage, match=r"a.png holds 1001, 65535: the classes are 0 ... 7, and 255"
    ):
        read(folders.make(classes=8))


def test_zero_label_as_in_ade20k(folders):
    """In this order: 0 is ignored, all others one less, and what was ignored stays so."""
    folders.pair(np.array([[0, 1, 2, 150, 255]], np.uint8))
    source = folders.make(classes=150, reduce_zero_label=True)
    np.testing.assert_array_equal(read(source), [[IGNORE, 0, 1, 149, IGNORE]])
    with pytest.raises(
        BadImage, match="a.png holds 150: the classes are 1 ... 149, and 255 is ign"
    ):
        read(folders.make(classes=149, reduce_zero_label=True))
    with pytest.raises(BadImage, match="a.png holds 150: the classes are 0 ... 149, and"):
        read(folders.make(classes=150))


def test_masks_of_0_and_255_need_a_mapping(folders):
    folders.pair(np.array([[0, 255]], np.uint8))
    with pytest.raises(
        UserError, match=r"hold 0, 255 only, and 255 is ignored: give ids={0: 0, 255: 1}"
    ):
        folders.make(classes=2)
    source = folders.make(classes=("sky", "cell"), ids={0: 0, 255: 1})
    np.testing.assert_array_equal(read(source), [[0, 1]])
    folders.pair(np.array([[False, True]]))
    np.testing.assert_array_equal(read(folders.make(classes=2)), [[0, 1]])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, bool])
def test_numbers_against_a_loop(kind):
    ids = ClassIds("x", classes=None, reduce_zero_label=False, ids={0: 3, 1: 255, 4: 1, 900: 2})
    for rule, expected in (
        (ids, lambda v: {0: 3, 4: 1, 900: 2}.get(v, IGNORE)),
        (ClassIds("x", classes=5, reduce_zero_label=True, ids=None), lambda v: (v - 1) % 256),
    ):
        values = (
            np.array([[0, 1, 4, 5]], kind)
            if rule is not ids
            else np.array([[0, 1, 900, -9]]).astype(kind)
        )
        found = rule(values, "")
        assert found.tolist() == [[expected(int(v)) for v in values[0]]]


def test_class_names_from_a_file(folders, tmp_path):
    (tmp_path / "names.txt").write_text("Himmel\n Straße \n\n", encoding="utf-8")
    folders.pair(np.array([[0, 1]], np.uint8))
    source = folders.make(classes=str(tmp_path / "names.txt"))
    assert source.names["segmentation"] == ("Himmel", "Straße")


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("annotated", ["upright", "stored"])
def test_labels_belong_to_the_image_that_is_named(folders, tmp_path, turn, annotated):
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[1:4, 6:12, 0] = 255
    mask = (pixels[:, :, 0] > 0).astype(np.uint8)
    folders.label("a.png", mask if annotated == "stored" else transposed(mask, turn))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(file_of("PNG", turn, pixels))
    rows = folders.make(classes=2, annotated=annotated).read([0])
    np.testing.assert_array_equal(rows["segmentation"][0], rows["image"][0].pixels()[:, :, 0] > 0)


def test_bad_labels_are_named(folders):
    folders.image("a.png")
    for values, message in (
        (
            np.zeros((6, 9, 3), np.uint8),
            "its mask has 3 channels: one, of class numbers, is needed",
        ),
        (
            label_of(shape=(9, 6)),
            "a.png is 6 x 9, the image 9 x 6, both upright.* annotated=stored",
        ),
        (label_of(3, (3, 3)), "a.png is 3 x 3, the image 9 x 6, both upright$"),
        (np.full((6, 9), 200, np.uint8), "a.png holds 200: the classes are 0 ... 3, and 255 is"),
    ):
        folders.label("a.png", values)
        with pytest.raises(BadImage, match=message) as error:
            read(folders.make(classes=4))
        assert "\n" not in str(error.value)
    folders.label("a.tif", Image.fromarray(np.zeros((6, 9), np.float32)))
    with pytest.raises(UserError, match="two labels of one name, 'a.png' and 'a.tif': remove one"):
        folders.make(classes=4)


def test_fractions_are_no_classes(folders):
    folders.image("a.png")
    folders.label("a.tif", Image.fromarray(np.full((6, 9), 0.5, np.float32)))
    with pytest.raises(
        BadImage, match="a.tif holds float32: whole numbers, of classes, are needed"
    ):
        read(folders.make(classes=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give classes=..., how many there are, .* hold 0, 1, 2, 3, of which 255 is ignored"),
        ({"classes": 0}, "classes should be 1 to 255, .* found 0"),
        ({"classes": 256}, "classes should be 1 to 255"),
        ({"classes": ("a", "a")}, "different names, or .* found 2"),
        ({"classes": "/none.txt"}, "cannot read the names in classes='/none.txt'"),
        ({"ids": {0: 256}}, r"ids={0: 256} should be 'cityscapes', or a number in \[0, 65535\]"),
        ({"ids": {-1: 0}}, r"ids={-1: 0} should be"),
        ({"ids": "voc"}, "ids='voc' should be 'cityscapes'"),
        ({"ids": {0: 5}, "classes": 2}, r"ids {0: 5} name a class that is not in 0 ... 1"),
        ({"ids": {0: 0}, "reduce_zero_label": True}, "ids say what 0 means: leave reduce_zero"),
        ({"classes": 4, "annotated": "left"}, "pairs: annotated 'left' is unknown: choose upright"),
        ({"classes": 4, "listed": "/none.txt"}, "cannot read the names in listed='/none.txt'"),
        ({"classes": 4, "suffixes": ("", "_x")}, r"no files in .*: looked for \*_x.png"),
    ],
)
def test_mistakes_in_the_arguments(folders, options, message):
    folders.pair(label_of())
    with pytest.raises(UserError, match=message) as error:
        folders.make(**options)
    assert "\n" not in str(error.value)


def test_no_pair_is_one_line(folders):
    folders.image("a.png")
    folders.label("b.png", label_of())
    with pytest.raises(UserError, match="no image in .* has a label in .*; see suffixes") as error:
        folders.make(classes=4)
    assert "left out 1 image without a label: a.png; left out 1 label without an" in str(
        error.value
    )


def test_from_a_config(folders):
    for name in "abcd":
        folders.pair(label_of(shape=(20, 30)), name)
    options = "ids={0: 0, 1: 1, 2: 1}, classes=(sky, sea)"
    spec = f"pairs({folders.images!r}, {folders.labels!r}, {options})"
    assert open_sources({"train": spec, "test": ""})["train"].num_examples == 4
    data = make_data(
        train=spec,
        batch_size=4,
        train_transform="random_scale(16)|pad(16)|class_crop(16)|flip",
        eval_transform="",
        fields=("segmentation",),
    )
    batch = next(data.train(0))
    assert batch["image"].shape == (4, 16, 16, 3)
    assert (batch["segmentation"].shape, batch["segmentation"].dtype) == ((4, 16, 16), np.int32)
    assert set(np.unique(batch["segmentation"])) == {0, 1, IGNORE}


def test_the_examples_of_the_documents_have_arguments_that_exist():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    lines = re.findall(r"^((?:pairs|tfds)\(.*?\))(?:  #.*)?$", page, re.M)
    assert len(lines) == 8
    for line in lines:
        check_spec(line, "data.sources")
    (recipe,) = re.findall(r'config.data.train_transform = "(random_scale.*)"', page)
    assert len(make_transforms(recipe)) == 4
