"""One table says what fields are and how they move; batches without images, of any rank."""

import itertools

import numpy as np
import pytest

from mae_jax.data import classes, fields, make_data
from mae_jax.data import transforms as T
from mae_jax.data.fields import IGNORE, Field, boxes_from_centers, move
from mae_jax.data.geometry import Affine, Window
from mae_jax.data.images import BadImage
from mae_jax.data.loader import Loader
from mae_jax.data.random import hash_words
from mae_jax.data.sources import Arrays, array_file
from mae_jax.data.subset import Part, subset
from mae_jax.types import UserError

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (6, 8, 3), np.uint8)
RIGHT = Affine(matrix=np.array([[1, 0, -3], [0, 1, 0]]), fill=(1, 2, 3))  # by three pixels


def batches_of(arrays, own=None, **options):
    """Batches of four rows of a source in memory, through a Loader."""
    source = Arrays(arrays)
    source.fields = own or {}
    defaults = dict(batch_size=4, train_transform="", eval_transform="", workers=2)
    data = make_data(train="fashion_scenes(num_examples=1, size=16)", **{**defaults, **options})
    data.sources["train"] = source
    return data


def saved(folder, **arrays):
    """Path of an .npz."""
    np.savez(folder / "set.npz", **arrays)
    return str(folder / "set.npz")


# The table --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fill"), [("nearest", 7), ("pixels", 0), ("none", 0)])
def test_a_row_of_the_table_moves_a_field(monkeypatch, kind, fill):
    monkeypatch.setattr(fields, "FIELDS", {**fields.FIELDS, "depth": Field(move=kind, fill=fill)})
    depth = IMAGE[..., :1]
    found = move({"image": IMAGE, "depth": depth, "other": 5}, RIGHT)
    cropped = move({"image": IMAGE, "depth": depth}, Window(box=(1, 2, 3, 4), size=(3, 4)))
    assert found["other"] == 5
    if kind == "none":
        assert found["depth"] is depth is cropped["depth"]
        return
    np.testing.assert_array_equal(found["depth"][:, 3:], depth[:, :-3])
    np.testing.assert_array_equal(cropped["depth"], depth[1:4, 2:6])
    luminance = round(0.299 * 1 + 0.587 * 2 + 0.114 * 3)
    assert (found["depth"][:, :3] == (fill if kind == "nearest" else luminance)).all()


def test_a_row_with_boxes_moves_like_box(monkeypatch):
    monkeypatch.setattr(fields, "FIELDS", {**fields.FIELDS, "face": Field(move="boxes")})
    box = np.array([0.1, 0.2, 0.5, 0.9], np.float32)
    found = move({"image": IMAGE, "face": box, "box": box}, RIGHT)
    np.testing.assert_array_equal(found["face"], found["box"])
    assert not np.array_equal(found["face"], box)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_outside_a_segmentation_is_no_class(dtype):
    """Not even where its type has no room for 255."""
    found = move({"image": IMAGE, "segmentation": np.ones((6, 8), dtype)}, RIGHT)["segmentation"]
    assert (found[:, :3] == IGNORE).all() and (found[:, 3:] == 1).all()
    assert found.dtype == np.int32


def test_a_source_declares_fields_of_its_own():
    """They have a type and move with the image; what nobody declares passes through as it is."""
    count = 5
    arrays = {
        "image": np.zeros((count, 6, 8, 3), np.uint8),
        "height_map": np.arange(count * 48).reshape(count, 6, 8),
        "tilt": np.arange(count, dtype=np.float16),
    }
    own = {"height_map": Field(dtype=np.int16, move="nearest", fill=-1)}
    data = batches_of(arrays, own, fields=("height_map", "tilt"), eval_transform="center_crop(4)")
    batch = next(data.eval("train"))
    np.testing.assert_array_equal(batch["height_map"], arrays["height_map"][:4, 1:5, 2:6])
    assert (batch["height_map"].dtype, batch["tilt"].dtype) == (np.int16, np.float16)
    assert batch.keys() == {"image", "height_map", "tilt", "valid"}
    part = Part(data.sources["train"], np.array([4, 2]))
    loader = Loader(part, T.make_transforms("center_crop(4)"), fields=("height_map",), on_error="")
    assert loader.spec()["height_map"] == ((4, 4), np.int16)


def test_a_field_of_another_size_is_named():
    example = {"image": IMAGE, "segmentation": np.zeros((3, 4))}
    with pytest.raises(BadImage, match=r"its segmentation is \(3, 4\), the image \(6, 8\)"):
        move(example, RIGHT)


def test_a_wrong_move_is_refused():
    with pytest.raises(UserError, match="move 'bilinear' is unknown: choose pixels, nearest, box"):
        Field(move="bilinear")


def test_boxes_of_yolo_are_converted():
    found = boxes_from_centers(np.array([[0.5, 0.25, 0.5, 0.1], [0.9, 0.9, 0.4, 0.2]]))
    np.testing.assert_allclose(found, [[0.2, 0.25, 0.3, 0.75], [0.8, 0.7, 1, 1]])


def test_names_of_classes_are_those_of_a_field():
    names = {"label": ("cat", "dog"), "segmentation": ("sky", "sea")}
    source = Arrays({"label": np.array([1, 0, 1]), "segmentation": np.zeros((3, 2, 2))}, names)
    assert source.class_names == names["label"] and source.names == names
    assert Part(source, np.array([0])).names == names
    more = Arrays({"label": np.zeros(1, int)}, {"label": ("ant", *names["label"])})
    longer = classes.like(source, more, ("label",))
    assert longer.names == {**names, "label": ("ant", "cat", "dog")}
    assert Arrays({"text": np.zeros((2, 3))}).class_names == ()


def test_labels_that_are_known_without_reading():
    labelled = Arrays({"label": np.array([1, 0, 1, -1])}, {"label": ("cat", "dog")})
    assert labelled.labels().tolist() == [1, 0, 1, -1]
    assert labelled.class_counts().tolist() == [1, 2]
    assert Part(labelled, np.array([2, 1])).labels().tolist() == [1, 0]
    without = Arrays({"image": np.zeros((2, 1, 1, 1))})
    assert without.labels() is None is Part(without, np.array([0])).class_counts()


def test_a_subset_keeps_the_labels_that_it_had_to_read():
    class Unknown(Arrays):
        def labels(self):
            return None

    source = Unknown({"label": np.array([0, 1, 1])}, {"label": ("cat", "dog")})
    assert subset(source, "per_class(1)").labels().tolist() == [0, 1]


# Batches without images -------------------------------------------------------------------------

TEXT = RNG.integers(0, 1000, (10, 7))


@pytest.mark.parametrize("pipeline", ["arrays", "tf"])
def test_texts_alone(tmp_path, pipeline):
    if pipeline == "tf":
        pytest.importorskip("tensorflow")
    path = saved(tmp_path, text=TEXT, y=np.arange(10) % 2, y_names=["spam", "ham"])
    data = make_data(
        train=f"array_file({path!r}, label=y, fields=(text,))",
        batch_size=4,
        train_transform="",
        eval_transform="",
        fields=("text", "label"),
        held_out=0.2,
        workers=2,
        pipeline=pipeline,
    )
    assert data.source("train").names == {"label": ("spam", "ham")} and data.num_examples == 8
    first = list(itertools.islice(data.train(0), 4))
    for batch in first:
        assert batch.keys() == {"text", "label"}
        assert (batch["text"].shape, batch["text"].dtype) == ((4, 7), np.int32)
    for epoch in (first[:2], first[2:]):
        rows = np.concatenate([batch["text"] for batch in epoch])
        assert len(np.unique(rows, axis=0)) == 8, "every example once an epoch"
    np.testing.assert_array_equal(next(data.train(3))["text"], first[3]["text"], "resumed")
    last = list(data.eval("val"))[-1]
    assert last.keys() == {"text", "label", "valid"} and last["valid"].tolist() == [1, 1, 0, 0]
    assert {k: v.shape for k, v in data.example("train").items()} == {"text": (1, 7), "label": (1,)}
    assert data.least_bytes("train") == 0 and data.source("train").statistics is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 2}, "config.data.views=2 needs images, the source has none: set it to 1"),
        ({"train_transform": "flip"}, "flip: examples without an image; leave it out of config."),
        ({"train_transform": "rand_augment"}, "rand_augment: examples without an image"),
        ({"fields": ("label",)}, "the source has no image: its fields are text; choose some with"),
        ({"fields": ("words",)}, "the source has no words: its fields are text"),
    ],
)
def test_what_needs_an_image_says_so(options, message):
    data = batches_of({"text": TEXT}, **{"fields": ("text",), **options})
    with pytest.raises(UserError) as error:
        next(data.train(0))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_texts_of_different_lengths():
    class Ragged(Arrays):
        def read(self, indices):
            return {"text": [np.zeros(3 + i % 2, int) for i in indices]}

    data = batches_of({"text": TEXT}, fields=("text",))
    data.sources["train"] = Ragged({"text": TEXT})
    with pytest.raises(UserError, match=r"texts of different sizes .* pad boxes and texts to one"):
        list(data.eval("train"))


# Images of any rank -----------------------------------------------------------------------------

SIGNALS = RNG.normal(size=(10, 30, 2)).astype(np.float32)
VOLUMES = RNG.integers(0, 256, (10, 5, 6, 7, 1), np.uint8)


@pytest.mark.parametrize(("images", "size"), [(SIGNALS, (8,)), (VOLUMES, (3, 4, 5))], ids=str)
def test_signals_and_volumes(images, size):
    rank = len(size)
    flipped = np.flip(images, rank)
    data = batches_of({"image": images}, fields=(), eval_transform=f"center_crop({size})")
    batch = next(data.eval("train"))["image"]
    start = [(side - kept) // 2 for side, kept in zip(images.shape[1:], size)]
    middle = tuple(slice(a, a + n) for a, n in zip(start, size))
    np.testing.assert_array_equal(batch, images[(slice(4), *middle)])
    assert batch.dtype == images.dtype
    data = batches_of({"image": images}, fields=(), train_transform=f"random_crop({size})|flip")
    batch = next(data.train(0))["image"]
    for crop in batch:
        windows = [
            np.lib.stride_tricks.sliding_window_view(all_, (1, *size, images.shape[-1]))
            for all_ in (images, flipped)
        ]
        found = [
            (one.reshape(-1, *crop.shape) == crop).all(tuple(range(1, rank + 2))) for one in windows
        ]
        assert found[0].any() or found[1].any()
    two = next(batches_of({"image": images}, fields=(), views=2).train(0))
    np.testing.assert_array_equal(two["image2"], two["image"])


def test_random_crops_are_uniform_along_every_axis():
    """Five, four and three places, each as often; the largest one too."""
    crop = T.make_transforms("random_crop((1, 3, 5))")[0]
    axes = np.stack(np.meshgrid(*map(np.arange, (5, 6, 7)), indexing="ij"), axis=-1)
    params = T.draw([crop], hash_words(1, np.arange(6000)))[0]
    starts = np.stack([crop.apply({"image": axes}, row)["image"][0, 0, 0] for row in params])
    for start, places in zip(starts.T, (5, 4, 3), strict=True):
        counts = np.bincount(start, minlength=places)
        assert len(counts) == places and abs(counts - 6000 / places).max() < 250


def test_crops_take_the_other_fields_along():
    example = {"image": VOLUMES[0], "segmentation": VOLUMES[0, ..., 0]}
    example["box"] = np.array([0, 0, 0, 0.6, 0.5, 1])
    found = T.make_transforms("center_crop((3, 4, 5))")[0].apply(example, np.zeros(0))
    np.testing.assert_array_equal(found["segmentation"], found["image"][..., 0])
    np.testing.assert_allclose(found["box"], [0, 0, 0, 2 / 3, 0.5, 1], atol=1e-6)
    mirrored = T.make_transforms("flip")[0].apply(found, np.ones(1))
    np.testing.assert_array_equal(mirrored["segmentation"], mirrored["image"][..., 0])
    np.testing.assert_allclose(mirrored["box"], [0, 0, 0, 2 / 3, 0.5, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resize(4)", "resize: images of shape (5, 6, 7, 1) and type uint8, it needs [H, W"),
        ("rand_augment", "rand_augment: images of shape (5, 6, 7, 1)"),
        ("random_erasing", "random_erasing: images of shape (5, 6, 7, 1)"),
        ("corruption(fog)", "leave it out, or use random_crop, center_crop and flip"),
        ("center_crop(4)", "center_crop: images of shape (5, 6, 7, 1) have 3 axes besides the"),
        ("random_crop((4, 4, 8))", "random_crop(4, 4, 8) of an image of 5 x 6 x 7: put pad(...)"),
    ],
)
def test_transforms_of_another_rank_say_so(text, message):
    transform = T.make_transforms(text)[0]
    with pytest.raises(UserError) as error:
        transform.apply({"image": VOLUMES[0]}, transform.plan(np.zeros((1, transform.draws)))[0])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_images_of_floats_in_2d_are_not_resized():
    with pytest.raises(UserError, match="resize: images of shape .* and type float32"):
        T.make_transforms("resize(4)")[0].apply({"image": np.zeros((8, 8, 1), "f4")}, ())


@pytest.mark.parametrize(("rank", "array"), [(1, SIGNALS), (1, SIGNALS[..., 0]), (3, VOLUMES)])
def test_files_of_signals_and_volumes(tmp_path, rank, array):
    np.save(tmp_path / "x.npy", array.astype(float) if rank == 1 else array)
    source = array_file.make(str(tmp_path / "x.npy"), rank=rank)
    found = np.stack(source.read(np.arange(10))["image"])
    np.testing.assert_array_equal(found, array.reshape(*array.shape[: rank + 1], -1))
    assert found.dtype == array.dtype and not source.notes
    with pytest.raises(UserError, match=r"\[N, 9 axes, C\], or \[N, 9 axes\] with one channel"):
        array_file.make(str(tmp_path / "x.npy"), rank=9)


def test_fields_of_a_file_beside_the_image(tmp_path):
    masks = RNG.integers(0, 3, (10, 5, 6, 7))
    path = saved(tmp_path, v=VOLUMES, segmentation=masks, segmentation_names=["a", "b", "c"])
    source = array_file.make(path, image="v", fields=("segmentation",), rank=3)
    rows = source.read(np.array([3, 1]))
    np.testing.assert_array_equal(rows["segmentation"], masks[[3, 1]])
    assert source.names == {"segmentation": ("a", "b", "c")} and source.class_counts() is None
    np.savez(tmp_path / "short.npz", v=VOLUMES, t=TEXT[:9])
    with pytest.raises(
        UserError, match=r"the ts of .*short.npz have shape \(9, 7\): its 10 images"
    ):
        array_file.make(str(tmp_path / "short.npz"), image="v", fields=("t",), rank=3)
    path = saved(tmp_path, v=VOLUMES, y=np.arange(10), y_names=["a"])
    with pytest.raises(UserError, match="holds names of 1 classes, but the label 9: save a name"):
        array_file.make(path, image="v", label="y", rank=3)
