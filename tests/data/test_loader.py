"""Examples that cannot be read, fields, sizes; and the same batches from every pipeline."""

import itertools

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data
from mae_jax.data.arrays import CHUNK
from mae_jax.types import UserError

SCENES = "fashion_scenes(num_examples=90, size=16)"
CROP = "random_resized_crop(8)|flip"


def data_of(train=SCENES, **options):
    """A small data set; options override."""
    defaults = dict(batch_size=4, train_transform=CROP, eval_transform="resize(8)", workers=2)
    return make_data(train=train, **{**defaults, **options})


def spoilt(folder, count=12, bad=(3, 7)):
    """A folder with images of noise, of which some are no images; returns its source."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for i in range(count):
        path = folder / f"{i:02}.png"
        Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8)).save(path)
        if i in bad:
            path.write_bytes(b"<html>Not Found</html>")
    return f"folder({str(folder)!r})"


def test_a_bad_image_is_named_with_its_number_and_the_reason(tmp_path):
    data = data_of(spoilt(tmp_path))
    with pytest.raises(UserError) as error:
        for batch in itertools.islice(data.train(0), 3):
            assert batch["image"].shape == (4, 8, 8, 3)
    assert str(error.value) in {
        f"cannot read image {i}, {i:02}.png: no image format that is known: it starts with "
        "b'<html>Not Found<'; repair or remove it, or have such images skipped: "
        "--config.data.on_error=skip in training, --on-error skip elsewhere"
        for i in (3, 7)
    }
    with pytest.raises(UserError, match="cannot read image 3, 03.png"):
        list(data.eval("train"))


def test_skipping_replaces_bad_images_and_counts_them(tmp_path):
    source = spoilt(tmp_path / "bad")
    data = data_of(source, on_error="skip")
    epochs = list(itertools.islice(data.train(0), 6))
    assert data.skipped == 4, "two in each of the two epochs"
    clean = data_of(spoilt(tmp_path / "clean", bad=()))
    changed = 0
    for batch, whole in zip(epochs, clean.train(0)):
        same = (batch["image"] == whole["image"]).all((1, 2, 3))
        changed += (~same).sum()
    assert changed == 4, "the others stay where they were"
    again = data_of(source, on_error="skip", workers=1)
    for batch, other in zip(epochs, again.train(0)):
        np.testing.assert_array_equal(batch["image"], other["image"])


def test_evaluation_leaves_bad_images_out(tmp_path):
    data = data_of(spoilt(tmp_path), on_error="skip", batch_size=5)
    masks = np.concatenate([batch["valid"] for batch in data.eval("train")])
    assert np.flatnonzero(~masks).tolist() == [3, 7, 12, 13, 14]
    assert data.skipped == 0, "that is about training"


def test_a_bad_first_image_does_not_hide_what_examples_look_like(tmp_path):
    data = data_of(spoilt(tmp_path, bad=(0,)), on_error="skip")
    assert data.example("train")["image"].shape == (1, 8, 8, 3)


def test_a_folder_of_nothing_but_bad_images(tmp_path):
    data = data_of(spoilt(tmp_path, bad=range(12)), on_error="skip")
    with pytest.raises(UserError, match="nor any of 10 replacements"):
        next(data.train(0))


def test_a_file_that_vanished(tmp_path):
    data = data_of(spoilt(tmp_path, bad=()))
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="No such file or directory.*on_error=skip"):
        next(data.train(0))


def test_fields_travel_if_they_are_asked_for():
    data = data_of(fields=("label", "segmentation", "box"))
    batch = next(data.train(0))
    assert batch.keys() == {"image", "label", "segmentation", "box"}
    assert (batch["segmentation"].shape, batch["segmentation"].dtype) == ((4, 8, 8), np.int32)
    assert (batch["box"].shape, batch["box"].dtype) == ((4, 4), np.float32)
    assert next(data_of(fields=()).train(0)).keys() == {"image"}
    with pytest.raises(UserError, match="has no depth: its fields are box, image, label, seg"):
        next(data_of(fields=("label", "depth")).train(0))


def test_masks_and_boxes_of_a_folder(tmp_path):
    source = spoilt(tmp_path / "images", count=4, bad=())
    for name in ("masks", "boxes"):
        (tmp_path / name).mkdir()
    masks = np.random.default_rng(1).integers(0, 5, (4, 9, 11), np.uint8)
    for i, mask in enumerate(masks):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i:02}.png")
    (tmp_path / "boxes" / "01.txt").write_text("2 0.5 0.25 0.5 0.5\n0 0.9 0.9 0.4 0.2\n")
    options = (
        f", masks={str(tmp_path / 'masks')!r}, boxes={str(tmp_path / 'boxes')!r}, max_boxes=3)"
    )
    fields = ("segmentation", "box", "box_label")
    data = data_of(source[:-1] + options, fields=fields, eval_transform="")
    batch = next(data.eval("train"))
    np.testing.assert_array_equal(batch["segmentation"], masks)
    np.testing.assert_allclose(
        batch["box"][1], [[0, 0.25, 0.5, 0.75], [0.8, 0.7, 1, 1], [0, 0, 0, 0]], atol=1e-6
    )
    assert batch["box_label"].tolist() == [[-1, -1, -1], [2, 0, -1], [-1, -1, -1], [-1, -1, -1]]
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "masks" / "00.png")
    with pytest.raises(UserError, match=r"00.png: its mask .*00.png is 3 x 3, the image 11 x 9"):
        next(data_of(source[:-1] + options, fields=fields).eval("train"))
    (tmp_path / "masks" / "00.png").unlink()
    with pytest.raises(UserError, match="No such file or directory: .*masks/00.png"):
        next(data_of(source[:-1] + options, fields=fields).eval("train"))
    (tmp_path / "boxes" / "00.txt").write_text("1 2 3")
    with pytest.raises(UserError, match="lines should be 'class x_center y_center width height'"):
        next(data_of(f"{source[:-1]}, boxes={str(tmp_path / 'boxes')!r})").eval("train"))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [3, CHUNK + 1, 2 * CHUNK, 97])
@pytest.mark.parametrize("start", [0, pytest.param(1_000_000, marks=pytest.mark.thorough)])
def test_both_pipelines_make_the_same_batches(batch_size, start):
    pytest.importorskip("tensorflow")
    options = dict(fields=("label", "segmentation", "box"), batch_size=batch_size)
    arrays, tensors = (
        itertools.islice(data_of(pipeline=name, **options).train(start), 5)
        for name in ("arrays", "tf")
    )
    for one, other in zip(arrays, tensors, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype


@pytest.mark.parametrize("pipeline", ["arrays", "tf"])
def test_errors_come_through_both_pipelines(pipeline, tmp_path):
    if pipeline == "tf":
        pytest.importorskip("tensorflow")
    data = data_of(spoilt(tmp_path), pipeline=pipeline)
    with pytest.raises(UserError, match="cannot read image [37], 0[37].png"):
        for _ in itertools.islice(data.train(0), 3):
            pass
    data = data_of(train_transform="center_crop(17)", pipeline=pipeline)
    with pytest.raises(UserError, match=r"center_crop\(17, 17\) of an image of 16 x 16"):
        next(data.train(0))


@pytest.mark.parametrize(
    "line", ["0 100 80 50 60", "0 0.5 0.5 nan 0.1", "1 2 3", "0 .1 .2 .3 .4 .5"]
)
def test_what_is_no_box_is_refused(tmp_path, line):
    source = spoilt(tmp_path / "images", count=4, bad=())
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "00.txt").write_text(line)
    with pytest.raises(UserError, match="lines should be 'class x_center y_center width height'"):
        next(data_of(f"{source[:-1]}, boxes={str(tmp_path / 'boxes')!r})").eval("train"))


def test_masks_may_not_lie_among_the_images(tmp_path):
    source = spoilt(tmp_path, count=4, bad=())
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match="masks '.*masks' is inside '.*': move it beside it"):
        data_of(f"{source[:-1]}, masks={str(tmp_path / 'masks')!r})")


def test_links_that_lead_back_are_not_followed(tmp_path):
    spoilt(tmp_path / "a", count=3, bad=())
    (tmp_path / "a" / "self").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert data_of(f"folder({str(tmp_path)!r})").num_examples == 6


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(UserError, match="there is no folder ''"):
        data_of("folder('')")


@pytest.mark.parametrize("pipeline", ["arrays", "tf"])
def test_two_views_are_other_draws_of_the_same_image(pipeline):
    if pipeline == "tf":
        pytest.importorskip("tensorflow")
    crop = "random_resized_crop(16, scale=(0.3, 1))|flip"
    one = next(data_of(train_transform=crop).train(7))
    two = next(data_of(train_transform=crop, views=2, pipeline=pipeline).train(7))
    assert set(two) == {"image", "image2", "label"} and two["image2"].dtype == np.uint8
    np.testing.assert_array_equal(two["image"], one["image"], "the first is as if alone")
    assert not any(np.array_equal(a, b) for a, b in zip(two["image"], two["image2"], strict=True))
    plain = next(data_of(train_transform="", views=2).train(7))
    np.testing.assert_array_equal(plain["image"], plain["image2"], "both are of the same images")


def test_the_second_view_is_of_the_image_that_stands_in_for_a_bad_one(tmp_path):
    data = data_of(spoilt(tmp_path), on_error="skip", views=2, train_transform="resize(8)")
    for batch in itertools.islice(data.train(0), 3):
        np.testing.assert_array_equal(batch["image"], batch["image2"])
    assert data.skipped == 2


def test_evaluation_has_one_view_and_there_is_at_least_one():
    assert set(next(data_of(views=2).eval("train"))) == {"image", "label", "valid"}
    with pytest.raises(UserError, match="views 0: give 1, or 2"):
        data_of(views=0)
