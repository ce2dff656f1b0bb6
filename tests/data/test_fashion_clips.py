"""Clips of moving garments, and the experiments on clips."""

import jax
import numpy as np
import pytest

from mae_jax.config import load_config
from mae_jax.data import make_data
from mae_jax.data.sources import fashion_clips, fashion_scenes
from mae_jax.models import vit
from mae_jax.settings import make_evaluators, make_method
from mae_jax.spec import build, call_section
from mae_jax.types import UserError


def test_clips_are_functions_of_seed_split_and_index():
    source = build("fashion_clips(size=24, frames=5, num_examples=30)", "data.sources")
    rows = source.read(np.arange(30))
    image = np.asarray(rows["image"])
    assert image.shape == (30, 5, 24, 24, 3) and image.dtype == np.uint8
    scenes = fashion_scenes.load("train").labels
    np.testing.assert_array_equal(rows["label"], scenes[:30])  # balanced: ten in a row
    again = fashion_clips.make(size=24, frames=5, num_examples=900).read([4])
    np.testing.assert_array_equal(again["image"][0], image[4])
    for other in (dict(split="test"), dict(seed=1)):
        found = fashion_clips.make(size=24, frames=5, **other).read([4])["image"][0]
        assert not np.array_equal(found, image[4])


def test_only_the_garment_moves_and_in_the_direction_of_its_label():
    """The center of what changes between the first and last frame, over a fixed background."""
    count = 80
    options = dict(size=32, frames=4, num_examples=count, label="direction")
    rows = fashion_clips.make(**options).read(np.arange(count))
    labels = np.asarray(rows["label"])
    image = np.asarray(rows["image"]).astype(np.float64)
    behind = np.median(image, axis=1, keepdims=True)
    weight = np.abs(image - behind).sum(axis=-1)  # [N, T, S, S] what is not the background
    places = np.stack(np.mgrid[:32, :32], axis=-1)  # (y, x)
    centers = np.einsum("ntyx,yxk->ntk", weight, places) / weight.sum(axis=(2, 3))[..., None]
    steps = centers[:, -1] - centers[:, 0]  # [N, 2]
    names = list(fashion_clips.DIRECTIONS.values())
    found = [int(np.argmax([step @ np.array(name) for name in names])) for step in steps]
    assert np.mean(np.array(found) == labels) > 0.97
    assert np.bincount(labels, minlength=4).min() > 8
    # At least one corner of each clip is background in all of its frames.
    still = [np.ptp(image[:, :, y, x], axis=1).max(axis=-1) for y in (0, -1) for x in (0, -1)]
    assert (np.min(still, axis=0) == 0).mean() > 0.9
    one = fashion_clips.make(**options | dict(frames=1)).read([3])["image"]
    np.testing.assert_array_equal(one[0, 0], rows["image"][3][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(split="val"), "fashion_clips: split 'val' is unknown: choose train, test"),
        (dict(size=8), "fashion_clips: size=8 should be an int from 16 to 4096"),
        (dict(frames=0), "fashion_clips: frames=0 should be an int from 1 to 256"),
        (dict(label="color"), "fashion_clips: label 'color' is unknown"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        fashion_clips.make(**options)


def traced(config, images):
    """The method of a config, with the loss of images traced and not computed."""
    method = call_section(make_method, config.method, "method", total_steps=10)
    shape = (images,) if isinstance(images, dict) else ()
    batch = shape[0] if shape else {"image": jax.ShapeDtypeStruct(images, np.uint8)}
    batch = method.example(batch["image"].shape[1:]) | batch
    params, extra = jax.eval_shape(method.init, jax.random.key(0), batch)
    loss = jax.eval_shape(method.loss, params, extra, batch, jax.random.key(0), 0).loss
    assert loss.shape == ()
    return method, params


WORDS = ["", "direction,tube", "time", "flat,channels", "inflated,blocks"]
WORDS = ["separable,frames", *(pytest.param(one, marks=pytest.mark.thorough) for one in WORDS)]


@pytest.mark.parametrize("words", WORDS)
def test_the_small_experiment_and_its_words(words):
    config = load_config(f"configs/video.py:{words}" if words else "configs/video.py")
    data = call_section(make_data, config.data, "data")
    assert data.example("train")["image"].shape == (1, 8, 32, 32, 3)
    method, _ = traced(config, (2, 8, 32, 32, 3))
    assert method.model.decoder.positions == method.encoder.positions
    make_evaluators(config.evals.run)


@pytest.mark.parametrize(
    ("arg", "visible", "values", "count"),
    [
        ("videomae/B/16", 160, 1536, 2),
        pytest.param("videomae/S/16", 160, 1536, 2, marks=pytest.mark.thorough),
        pytest.param("mae_st/L/16", 156, 768, 2, marks=pytest.mark.thorough),
        pytest.param("mae_st/H/14", 204, 588, 2, marks=pytest.mark.thorough),
    ],
)
def test_recipes_are_those_of_the_papers(arg, visible, values, count, monkeypatch):
    """Numbers of visible patches and predicted values; two blocks say what others would."""
    for size, shape in vit.SIZES.items():
        monkeypatch.setitem(vit.SIZES, size, shape | dict(depth=count))
    config = load_config(f"configs/video.py:{arg}")
    config.method.args.decoder_depth = 1
    method, params = traced(config, (2, 16, 224, 224, 3))
    patch = int(arg.rpartition("/")[2])
    grid = (8, 224 // patch, 224 // patch)
    assert method.strategy.visible(grid, method.mask_ratio) == visible
    assert params["decoder"]["predict"]["kernel"].shape[1] == values
    assert ("positions_time" in params["encoder"]) == arg.startswith("mae_st")


@pytest.mark.thorough
def test_parameters_of_videomae():
    """Those of ViT-B and its decoder, layer by layer, without biases of keys."""
    config = load_config("configs/video.py:videomae/B/16")
    _, params = traced(config, (2, 16, 224, 224, 3))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    block = lambda d: 4 * d + 3 * d * d + 2 * d + d * (d + 1) + 4 * d * (d + 1) + d * (4 * d + 1)
    encoder = 1536 * 768 + 768 + 12 * block(768) + 2 * 768
    decoder = 768 * 384 + 384 + 4 * block(384) + 2 * 384 + 1536 * (384 + 1)
    assert encoder + decoder == 94_210_944
    assert count == encoder + decoder + 12 * 768 + 4 * 384  # ours have biases of keys


@pytest.mark.parametrize("arg", ["videomae/T/16", "videomae/B", "mae_st/S/16", "tub"])
def test_other_arguments_are_refused(arg):
    with pytest.raises(UserError, match="configs/video.py"):
        load_config(f"configs/video.py:{arg}")


@pytest.mark.thorough
@pytest.mark.parametrize("words", ["foreground", "centimeters", "foreground,centimeters"])
def test_words_of_volumes(words):
    config = load_config(f"configs/volumes.py:{words}")
    config.data.update(train="ellipsoids(num_examples=64)", test="")
    batch = next(call_section(make_data, config.data, "data").train(0))
    method, _ = traced(config, jax.eval_shape(lambda: batch))
    assert bool(method.loss_mask) == ("foreground" in words)
    assert bool(method.encoder.spacing) == ("centimeters" in words)
