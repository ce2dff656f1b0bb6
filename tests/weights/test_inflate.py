"""Weights of images in encoders of clips, and the way back: plain statements about the arrays."""

import jax
import numpy as np
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from mae_jax import weights
from mae_jax.methods import make_method
from mae_jax.ops.patches import patchify
from mae_jax.ops.posemb import with_prefix
from mae_jax.types import Skips, TrainState, UserError
from mae_jax.weights.init_from import make_init_from

VIT = "vit(width=12, depth=1, heads=2, patch={})"
DECODER = dict(decoder_width=12, decoder_depth=1, decoder_heads=2)
IMAGE, CLIP = (8, 12, 3), (6, 8, 12, 3)
RNG = np.random.default_rng(0)


def method_of(encoder):
    args = dict(encoder=encoder, **DECODER)
    return make_method(name="mae", args=args, total_steps=1), ConfigDict(
        dict(name="mae", args=args)
    )


def shapes_of(method, image):
    """Shapes of the parameters and the other collections."""
    batch = {"image": np.zeros((1, *image), np.uint8)}
    return jax.eval_shape(lambda key: method.init(key, batch), jax.random.key(0))


def run_of(path, encoder, image):
    """A folder with random weights that commands use like a run."""
    method, config = method_of(encoder)
    flat = traverse_util.flatten_dict(shapes_of(method, image)[0], sep="/")
    params = {k: RNG.standard_normal(v.shape).astype(np.float32) for k, v in flat.items()}
    args = config.args.to_dict() | dict(pool="cls", mean=(0.5,), std=(0.25,))
    weights.write_run(weights.Model(params, "mae", args, image), path)
    return {k.removeprefix("encoder/"): v for k, v in params.items() if k.startswith("encoder/")}


def loaded(path, encoder, image, **options):
    """The encoder's arrays after `init_from`, by path."""
    method, config = method_of(encoder)
    zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype))
    params, extra = jax.tree.map(zeros, shapes_of(method, image))
    section = ConfigDict(dict(path=str(path), **options))
    start = make_init_from(section, config=config, method=method, image=image)
    zero = np.int32(0)
    state = start.load(TrainState(zero, params, (), extra, Skips(zero, zero)))
    return traverse_util.flatten_dict(jax.device_get(state.params["encoder"]), sep="/")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("inflate")


@pytest.fixture(scope="module")
def image(folders):
    return folders / "image", run_of(folders / "image", VIT.format(4), IMAGE)


@pytest.fixture(scope="module")
def clip(folders):
    encoder = VIT.format("(2, 4, 4), positions=separable")
    return folders / "clip", run_of(folders / "clip", encoder, CLIP)


def test_a_clip_of_equal_frames_is_embedded_as_the_image(image, caplog):
    path, saved = image
    found = loaded(path, VIT.format("(2, 4, 4), positions=separable"), CLIP)
    picture = RNG.standard_normal((2, *IMAGE)).astype(np.float32)
    frames = np.repeat(picture[:, None], 6, axis=1)
    old = np.asarray(patchify(picture, 4)) @ saved["embed/kernel"] + with_prefix((2, 3), 12)[1:]
    new = np.asarray(patchify(frames, (2, 4, 4))) @ found["embed/kernel"]
    new += np.repeat(found["positions_time"], 6, axis=0) + np.tile(found["positions_space"], (3, 1))
    np.testing.assert_allclose(new, np.tile(old, (1, 3, 1)), atol=1e-4)
    np.testing.assert_array_equal(found["positions_class"], 0)
    others = {k for k in found if "positions" not in k and k != "embed/kernel"}
    for name in others:
        np.testing.assert_array_equal(found[name], saved[name])
    assert "spread over 2 frames (mean), and positions of space are kept" in caplog.text


@pytest.mark.thorough
def test_the_kernel_in_the_middle_frame(image):
    path, saved = image
    found = loaded(path, VIT.format("(3, 4, 4)"), CLIP, inflate="center")
    frames = found["embed/kernel"].reshape(3, 48, 12)
    np.testing.assert_array_equal(frames[1], saved["embed/kernel"])
    assert not frames[[0, 2]].any() and "positions" not in found


@pytest.mark.thorough
def test_positions_of_another_size_are_resampled(image):
    """In space; time starts at zero."""
    path, _ = image
    found = loaded(path, VIT.format("(2, 4, 4), positions=separable"), (4, 16, 12, 3))
    assert found["positions_space"].shape == (12, 12)
    assert found["positions_time"].shape == (2, 12) and not found["positions_time"].any()


@pytest.mark.thorough
def test_trained_positions_are_equal_at_all_times(image):
    path, _ = image
    found = loaded(path, VIT.format("(2, 4, 4), learned_positions=True"), CLIP)["positions"]
    np.testing.assert_allclose(found[1:], np.tile(with_prefix((2, 3), 12)[1:], (3, 1)), atol=1e-6)


def test_the_way_back_sums_over_time(clip, caplog):
    path, saved = clip
    found = loaded(path, VIT.format("4, learned_positions=True"), IMAGE)
    kernel = saved["embed/kernel"]
    np.testing.assert_allclose(found["embed/kernel"], kernel[:48] + kernel[48:], rtol=1e-6)
    space = saved["positions_space"] + saved["positions_time"].mean(axis=0)
    np.testing.assert_allclose(
        found["positions"], np.concatenate([saved["positions_class"], space]), atol=1e-6
    )
    assert "summed over 2 frames" in caplog.text


@pytest.mark.thorough
def test_there_and_back_is_the_same(image, folders):
    path, saved = image
    clip = loaded(path, VIT.format("(2, 4, 4), positions=separable"), CLIP)
    params = {f"encoder/{k}": np.asarray(v) for k, v in clip.items()}
    args = dict(encoder=VIT.format("(2, 4, 4), positions=separable"), pool="cls")
    args |= dict(mean=(0.5,), std=(0.25,))
    weights.write_run(weights.Model(params, "tasks.encode", args, CLIP), folders / "there")
    back = loaded(folders / "there", VIT.format(4), IMAGE)
    np.testing.assert_allclose(back["embed/kernel"], saved["embed/kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        (VIT.format("(2, 8, 4)"), {}, "has another architecture"),
        (VIT.format("(2, 4, 4)"), dict(inflate="sum"), "inflate.*'sum'"),
    ],
)
def test_others_are_refused(image, encoder, options, message):
    with pytest.raises(UserError, match=message):
        loaded(image[0], encoder, CLIP, **options)
