"""Batches from sources: evaluation, folders of images, and what goes wrong with them."""

import itertools

import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data
from mae_jax.data.images import pixels_of
from mae_jax.data.sources import folder
from mae_jax.types import UserError

SCENES = "fashion_scenes(num_examples=10, size=16)"


def data_of(train=SCENES, **options):
    """A small data set; options override."""
    defaults = dict(batch_size=4, train_transform="", eval_transform="", workers=2)
    return make_data(train=train, **{**defaults, **options})


def save(path, size=(6, 8), mode="RGB", seed=0, **options):
    """Writes an image of noise, (height, width) large; returns its pixels."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, *channels), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode=mode).save(path, **options)
    return pixels


def test_evaluation_goes_once_through_a_split_in_order():
    data = data_of(test="fashion_scenes(split=test, num_examples=6, size=16)")
    for split, count in (("train", 10), ("test", 6)):
        source = data.source(split).arrays
        loaded = list(data.eval(split))
        assert all(batch["image"].shape == (4, 16, 16, 3) for batch in loaded)
        masks = np.concatenate([batch["valid"] for batch in loaded])
        assert masks.dtype == bool and masks.tolist() == [True] * count + [False] * 2
        for field in ("image", "label"):
            values = np.concatenate([batch[field] for batch in loaded])
            np.testing.assert_array_equal(values[masks], source[field])
            assert values.dtype == source[field].dtype
            np.testing.assert_array_equal(values[count:], np.repeat(source[field][-1:], 2, axis=0))


def test_evaluation_over_processes_is_the_global_batch():
    whole = list(data_of().eval("train"))
    halves = [list(data_of(process_index=i, process_count=2).eval("train")) for i in (0, 1)]
    assert len(whole) == len(halves[0]) == len(halves[1]) == 3
    for batch, *parts in zip(whole, *halves, strict=True):
        for field in ("image", "label", "valid"):
            joined = np.concatenate([part[field] for part in parts])
            np.testing.assert_array_equal(joined, batch[field])


def test_a_limit_takes_fixed_examples_from_all_over_the_split():
    data = data_of("fashion_scenes(num_examples=400, size=16)")
    names = {image.tobytes(): i for i, image in enumerate(data.source("train").arrays["image"])}
    loaded = list(data.eval("train", limit=30))
    assert len(loaded) == 8 and sum(batch["valid"].sum() for batch in loaded) == 30
    chosen = [
        names[image.tobytes()] for batch in loaded for image in batch["image"][batch["valid"]]
    ]
    assert len(set(chosen)) == 30
    assert min(chosen) < 100 and max(chosen) >= 300
    again = np.concatenate([batch["image"] for batch in data.eval("train", limit=30)])
    np.testing.assert_array_equal(again, np.concatenate([batch["image"] for batch in loaded]))


def test_a_limit_beyond_the_split_is_the_whole_split():
    data = data_of()
    for limited, whole in zip(data.eval("train", limit=99), data.eval("train"), strict=True):
        np.testing.assert_array_equal(limited["image"], whole["image"])


@pytest.mark.parametrize("start", [0, 5])
def test_workers_do_not_change_the_batches(start):
    transform = "random_resized_crop(8)|flip"
    streams = [data_of(train_transform=transform, workers=n).train(start) for n in (1, 4)]
    for one, four in itertools.islice(zip(*streams), 8):
        assert one.keys() == four.keys() == {"image", "label"}
        for field in one:
            np.testing.assert_array_equal(one[field], four[field])


def test_training_may_start_at_any_step():
    data = data_of(train_transform="random_resized_crop(8)|flip")
    late, seventh = next(data.train(6)), next(itertools.islice(data.train(0), 6, None))
    np.testing.assert_array_equal(late["image"], seventh["image"])
    other = data_of(train_transform="random_resized_crop(8)|flip", seed=1)
    assert (late["image"] != next(other.train(6))["image"]).any()


def test_classes_are_the_sub_folders_in_order(tmp_path):
    pixels = {
        name: save(tmp_path / name, seed=i)
        for i, name in enumerate(["dog/2.png", "ant/b.PNG", "cat/x/1.png", "dog/10.png"])
    }
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    source = folder.make(str(tmp_path))
    assert source.class_names == ("ant", "cat", "dog")
    assert source.num_examples == 4
    fields = source.read(np.arange(4))
    order = ["ant/b.PNG", "cat/x/1.png", "dog/10.png", "dog/2.png"]
    assert fields["label"] == [0, 1, 2, 2]
    assert [source.name(i) for i in range(4)] == order
    for image, name in zip(fields["image"], order, strict=True):
        np.testing.assert_array_equal(pixels_of(image), pixels[name])
    assert source.read(np.array([3, 0]))["label"] == [2, 0]


def test_sub_folders_may_be_links(tmp_path):
    save(tmp_path / "elsewhere" / "dog" / "1.png")
    save(tmp_path / "images" / "ant" / "1.png")
    (tmp_path / "images" / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    assert folder.make(str(tmp_path / "images")).class_names == ("ant", "dog")


def test_a_flat_folder_has_no_labels(tmp_path):
    save(tmp_path / "1.png")
    save(tmp_path / "more" / "2.png")
    data = data_of(f"folder({str(tmp_path)!r})", batch_size=2)
    assert data.source("train").class_names == ()
    assert next(data.train(0)).keys() == {"image"}
    assert next(data.eval("train")).keys() == {"image", "valid"}


def test_labels_reach_the_batch(tmp_path):
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "1.png")
    batch = next(data_of(f"folder({str(tmp_path)!r})", batch_size=2).eval("train"))
    assert batch["label"].tolist() == [0, 1] and batch["label"].dtype == np.int32


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="there is no folder '.*nothing'"):
        data_of(f"folder({str(tmp_path / 'nothing')!r})")


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(
        UserError, match="no files in .* that it reads: looked for .jpg, .jpeg, .png"
    ):
        data_of(f"folder({str(tmp_path)!r})")


def test_other_numbers_of_channels(tmp_path):
    with pytest.raises(UserError, match="channels 2 is not supported: choose 1, 3, 4"):
        folder.make(str(tmp_path), channels=2)


def test_images_of_different_sizes_need_a_transform(tmp_path):
    save(tmp_path / "1.png", size=(6, 8))
    save(tmp_path / "2.png", size=(9, 8))
    text = f"folder({str(tmp_path)!r})"
    data = data_of(text, batch_size=2)
    for batches in (data.train(0), data.eval("train")):
        with pytest.raises(UserError, match=r"different sizes .*\(6, 8, 3\) and \(9, 8, 3\)"):
            next(batches)
    for transform in ("random_resized_crop(5)", "resize(6)|center_crop(5)"):
        resized = data_of(text, batch_size=2, train_transform=transform)
        assert next(resized.train(0))["image"].shape == (2, 5, 5, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pipeline": "numpy"}, "pipeline 'numpy' is unknown: choose arrays, tf"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 5, "process_count": 2}, "batch_size 5 does not split over 2 processes"),
        ({"train": "fashion_scene"}, "did you mean 'fashion_scenes'?"),
        ({"train": ""}, "train"),
        ({"train": f"{SCENES}|{SCENES}"}, "should name exactly one"),
        ({"eval_transform": "flop"}, "transforms has no 'flop': did you mean 'flip'?"),
        ({"workers": -1}, "workers -1"),
        ({"workers": 10_000}, "workers 10000: give up to 1024 threads"),
        ({"on_error": "ignore"}, "on_error 'ignore' is unknown: choose raise, skip"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(UserError) as error:
        data_of(**options)
    assert message in str(error.value)


def test_a_split_that_is_not_there():
    with pytest.raises(UserError, match="config.data.test names no source"):
        next(data_of().eval("test"))
