"""The same batches, and the same training, from every source of the same images."""

import hashlib
import itertools
import time

import jax
import numpy as np
import pytest
from PIL import Image

from mae_jax.data import make_data
from mae_jax.data.sources import Arrays, Source, fashion_scenes
from mae_jax.train import train
from tests.helpers.tiny import get_config

COUNT, CLASSES = 32, 4


def name_of(i):
    """A file name in sub-folder i * CLASSES // COUNT for which the order of names is also the order
    of their hashes, in which `prepare` writes files.
    """
    for salt in itertools.count():
        name = f"{i * CLASSES // COUNT}/{i:02}-{salt}.png"
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
        if i <= place * COUNT < i + 1:
            return name


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """Name -> spec of a source of the same 32 images, stored without loss, in the same order."""
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    from mae_jax.data.prepare import prepare

    root = tmp_path_factory.mktemp("sources")
    images = fashion_scenes.make(num_examples=COUNT, size=16).arrays["image"]
    labels = np.arange(COUNT) * CLASSES // COUNT
    for i, image in enumerate(images):
        path = root / "files" / name_of(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    np.save(root / "images.npy", images)
    np.save(root / "labels.npy", labels)
    np.savez(root / "set.npz", x=images, y=labels)
    prepared = prepare(root / "files", root, name="prepared", shard_megabytes=1).folder
    return {
        "arrays": f"fashion_scenes(num_examples={COUNT}, size=16)",
        "folder": f"folder({str(root / 'files')!r})",
        "array_record": f"tfds({str(prepared)!r})",
        "npy": f"array_file({str(root / 'images.npy')!r}, labels={str(root / 'labels.npy')!r})",
        "npz": f"array_file({str(root / 'set.npz')!r}, image=x, label=y)",
    }


def data_of(spec, **options):
    """A small data set; options override."""
    defaults = dict(batch_size=12, train_transform="random_resized_crop(8)|flip", workers=2)
    return make_data(train=spec, eval_transform="", **{**defaults, **options})


NUMBERS = [*range(6), *(pytest.param(i, marks=pytest.mark.thorough) for i in range(6, 20))]


@pytest.mark.slow
@pytest.mark.parametrize("number", NUMBERS)
def test_batches_are_the_same_from_any_source_in_any_number_of_processes(specs, number):
    rng = np.random.default_rng(number)
    seed, step = int(rng.integers(2**32)), int(rng.integers(10 ** rng.integers(1, 13)))
    whole = next(data_of(specs["npy"], seed=seed).train(step))
    for name, count in itertools.product(("arrays", "folder", "array_record"), (1, 2, 4)):
        parts = [
            next(data_of(specs[name], seed=seed, process_index=i, process_count=count).train(step))
            for i in range(count)
        ]
        for field in ("image", "label") if name != "arrays" else ("image",):
            joined = np.concatenate([part[field] for part in parts])
            np.testing.assert_array_equal(joined, whole[field])


@pytest.mark.parametrize("name", ["arrays", "folder", "array_record", "npy", "npz"])
def test_every_example_comes_once_an_epoch(specs, name):
    """Batches of 12 of 32 examples: the third and the sixth go over the end of an epoch."""
    source = data_of(specs[name]).source("train")
    known = data_of(specs["npy"]).eval("train")
    images = np.concatenate([batch["image"] for batch in known])[:COUNT]
    places = {image.tobytes(): i for i, image in enumerate(images)}
    stream = data_of(specs[name], train_transform="").train(0)
    seen = [places[image.tobytes()] for b in itertools.islice(stream, 8) for image in b["image"]]
    for epoch in range(3):
        assert sorted(seen[epoch * COUNT : (epoch + 1) * COUNT]) == list(range(COUNT))
    assert seen[:COUNT] != seen[COUNT : 2 * COUNT], "each in an order of its own"
    assert source.num_examples == COUNT


@pytest.mark.parametrize("name", ["arrays", "folder", "array_record"])
def test_a_late_start_is_as_quick_as_an_early_one(specs, name):
    data = data_of(specs[name])
    next(data.train(0))
    begun = time.process_time()
    batch = next(data.train(1_000_000))
    assert time.process_time() - begun < 2
    assert batch["image"].shape == (12, 8, 8, 3)


OPTIONS = dict(test="", fields=(), workers=2)
"""Of the runs of `parameters`."""


def parameters(spec, workdir, pipeline):
    """Those that a tiny run of 12 steps ends with."""
    config = get_config()
    config.data.update(train=spec, pipeline=pipeline, **OPTIONS)
    config.schedule.update(epochs=3.0)
    state = train(config, workdir)
    return jax.device_get(state.params)


@pytest.fixture(scope="module")
def expected(specs, tmp_path_factory):
    """Parameters after training without TensorFlow."""
    return parameters(specs["arrays"], tmp_path_factory.mktemp("plain"), "arrays")


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("name", ["arrays", "folder", "array_record", "npy", "npz"])
def test_training_ends_the_same_from_all_sources(specs, name, expected, tmp_path):
    """As it does from the same batches, see below."""
    pytest.importorskip("tensorflow")
    found = parameters(specs[name], tmp_path, "tf")
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", ["arrays", "folder", "array_record", "npy", "npz"])
def test_all_batches_of_a_training_are_the_same_from_all_sources(specs, name):
    pytest.importorskip("tensorflow")

    def batches(spec, pipeline):
        options = dict(get_config().data) | OPTIONS | dict(train=spec, pipeline=pipeline)
        return itertools.islice(make_data(**options).train(0), 12)

    pairs = zip(batches(specs[name], "tf"), batches(specs["arrays"], "arrays"), strict=True)
    for number, (found, wanted) in enumerate(pairs):
        assert found.keys() == wanted.keys() == {"image"}, number
        np.testing.assert_array_equal(found["image"], wanted["image"])


class Large(Source):
    """A source of any number of examples: their numbers, written into the pixels."""

    def __init__(self, num_examples):
        self.num_examples = num_examples

    def read(self, indices):
        """'image' [1, 1, 8] uint8: the index."""
        return {"image": np.asarray(indices, np.int64).view(np.uint8).reshape(-1, 1, 1, 8)}

    def name(self, index):
        """The index."""
        return str(index)


def test_a_large_set_needs_no_list_of_its_examples():
    """A billion of them, far into the tenth epoch."""
    data = data_of("fashion_scenes(num_examples=1, size=16)", train_transform="", fields=())
    data.sources["train"] = Large(10**9)
    begun = time.process_time()
    stream = data.train(10**9)
    batches = [next(stream)["image"].reshape(-1, 8).view(np.int64) for _ in range(100)]
    assert time.process_time() - begun < 2
    indices = np.concatenate(batches).ravel()
    assert len(np.unique(indices)) == len(indices) == 1200
    assert indices.min() >= 0 and indices.max() < 10**9


def test_sources_in_memory_name_their_places():
    assert Arrays({"image": np.zeros((2, 1, 1, 1), np.uint8)}).name(1) == "[1]"
