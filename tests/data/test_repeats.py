"""Several rows of each image: which, with which seeds, in any number of processes, decoded once."""

import itertools

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mae_jax.data import images, make_data
from mae_jax.data.arrays import CHUNK, chunk_size
from mae_jax.data.loader import Loader
from mae_jax.data.order import training_rows
from mae_jax.data.sources import folder
from mae_jax.data.transforms import make_transforms
from mae_jax.types import UserError
from tests.data.test_loader import spoilt

SCENES = "fashion_scenes(num_examples=30, size=16)"


def data_of(train=SCENES, **options):
    """A small data set; options override."""
    defaults = dict(
        batch_size=12,
        train_transform="random_resized_crop(8)|flip",
        eval_transform="resize(8)",
        workers=2,
    )
    return make_data(train=train, **{**defaults, **options})


def batches(count, start=0, **options):
    return list(itertools.islice(data_of(**options).train(start), count))


@pytest.mark.parametrize(("num_examples", "batch_size", "repeats"), [(30, 12, 3), (7, 8, 2)])
def test_every_example_comes_once_an_epoch_with_all_of_its_copies(
    num_examples, batch_size, repeats
):
    options = dict(seed=5, num_examples=num_examples)
    steps = range(4 * num_examples * repeats // batch_size)
    rows = [
        training_rows(step, batch_size=batch_size, repeats=repeats, **options) for step in steps
    ]
    assert {row.repeats for row in rows} == {repeats}
    indices = np.concatenate([row.indices for row in rows]).reshape(-1, repeats)
    seeds = np.concatenate([row.seeds for row in rows]).reshape(-1, repeats)
    assert (indices == indices[:, :1]).all(), "copies are adjacent"
    epochs = indices[: len(indices) // num_examples * num_examples, 0].reshape(-1, num_examples)
    assert len(epochs) >= 3 and (np.sort(epochs, axis=1) == np.arange(num_examples)).all()
    assert len(np.unique(seeds)) == seeds.size, "each copy has a seed of its own each time"
    plain = [training_rows(step, batch_size=batch_size // repeats, **options) for step in steps]
    np.testing.assert_array_equal(np.concatenate([row.indices for row in plain]), indices[:, 0])
    np.testing.assert_array_equal(np.concatenate([row.seeds for row in plain]), seeds[:, 0])


def test_seeds_of_copies_are_a_function_of_run_epoch_example_and_copy():
    """The same for any batch size and number of repeats."""
    seeds = {}
    for batch_size, repeats in ((12, 2), (12, 4), (24, 3)):
        for step in range(3 * 20 * repeats // batch_size):
            rows = training_rows(
                step, seed=1, num_examples=20, batch_size=batch_size, repeats=repeats
            )
            for row, (index, seed) in enumerate(zip(rows.indices, rows.seeds, strict=True)):
                epoch = (step * batch_size + row) // (repeats * 20)
                key = (epoch, int(index), row % repeats)
                assert seeds.setdefault(key, seed) == seed
    assert len(set(seeds.values())) == len(seeds)


@pytest.mark.parametrize("step", [0, 2, 1000])
def test_processes_share_the_global_batch(step):
    options = dict(seed=3, num_examples=5, batch_size=24, repeats=4)
    whole = training_rows(step, **options)
    for count in (1, 2, 3):
        parts = [
            training_rows(step, **options, process_index=i, process_count=count)
            for i in range(count)
        ]
        for field in ("indices", "seeds"):
            joined = np.concatenate([getattr(part, field) for part in parts])
            np.testing.assert_array_equal(joined, getattr(whole, field))


def test_batches_have_the_plain_rows_and_other_crops_of_the_same_images():
    plain, found = batches(3, batch_size=3), batches(3, repeats=4)
    for one, many in zip(plain, found, strict=True):
        assert many["image"].shape == (12, 8, 8, 3)
        np.testing.assert_array_equal(many["image"][::4], one["image"])
        np.testing.assert_array_equal(many["label"], np.repeat(one["label"], 4))
        crops = many["image"].reshape(3, 4, -1)
        assert all(len(np.unique(of_one, axis=0)) == 4 for of_one in crops)
    for one, other in zip(batches(2, 1, repeats=1), batches(2, 1), strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


def test_two_processes_and_a_later_start_make_the_same_batches():
    whole = batches(4, repeats=2)
    parts = [batches(2, 2, repeats=2, process_index=i, process_count=2) for i in (0, 1)]
    for batch, *halves in zip(whole[2:], *parts, strict=True):
        for name, rows in batch.items():
            np.testing.assert_array_equal(np.concatenate([x[name] for x in halves]), rows)


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("repeats", [3, CHUNK + 1])
def test_both_pipelines_make_the_same_batches(repeats):
    """Also where copies do not fill the chunks of threads."""
    pytest.importorskip("tensorflow")
    assert chunk_size(repeats) % repeats == 0
    options = dict(batch_size=12 * repeats, repeats=repeats, fields=("label", "box"))
    arrays, tensors = (batches(2, pipeline=name, **options) for name in ("arrays", "tf"))
    for one, other in zip(arrays, tensors, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("side", [90, 200])
def test_an_image_is_decoded_once_at_each_resolution(tmp_path, monkeypatch, side):
    """However many crops need it: of small images at one, of large ones at up to three."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, side // 10, side // 10, 3), np.uint8)
    for i, small in enumerate(pixels):
        Image.fromarray(small).resize((side, side)).save(tmp_path / f"{i}.jpg", quality=95)
    counts, decode = [], simplejpeg.decode_jpeg

    def counting(data, **options):
        counts.append((hash(data), options["min_height"]))
        return decode(data, **options)

    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", counting)
    transforms = make_transforms("random_resized_crop(24, scale=(0.1, 1))")
    loader = Loader(folder.make(str(tmp_path)), transforms, fields=(), on_error="raise")
    out = loader.buffers(64)
    counts.clear()
    loader.load(training_rows(0, seed=0, num_examples=4, batch_size=64, repeats=16), out)
    assert len(counts) == len(set(counts)) <= 12, "none of them twice"
    assert len({data for data, _ in counts}) == 4
    assert (len(counts) > 4) == (side == 200)


def test_bad_images_are_replaced_copy_by_copy(tmp_path):
    source = spoilt(tmp_path / "bad")
    data = data_of(source, repeats=2, on_error="skip")
    found = list(itertools.islice(data.train(0), 4))
    assert data.skipped == 2 * 2 * 2, "of two images, twice each in two epochs"
    clean = batches(4, train=spoilt(tmp_path / "clean", bad=()), repeats=2)
    same = [
        (one["image"] == other["image"]).all((1, 2, 3))
        for one, other in zip(found, clean, strict=True)
    ]
    assert (~np.concatenate(same)).sum() == 8, "the others stay where they were"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(repeats=0), "repeats=0 must be at least 1"),
        (dict(repeats=5), r"repeats=5 must .* divide the 12 rows of each of 1 process\(es\)"),
        (dict(repeats=4, process_count=2), "divide the 6 rows of each of 2"),
        (dict(repeats=2, views=2), "repeats=2 with views=2: copies of an image would be compared"),
    ],
)
def test_numbers_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        data_of(**options)


def test_a_run_reports_what_an_epoch_decodes():
    lines = data_of(repeats=4).notes()
    assert lines[0].startswith("config.data.repeats=4: 4 crops of each image that is decoded")
    assert not any("repeats" in line for line in data_of().notes())
