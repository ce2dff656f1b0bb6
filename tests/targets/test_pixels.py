"""The target of clips: pixels normalized per channel, and of some frames, against float64 numpy."""

import jax
import numpy as np
import pytest

from mae_jax.methods import mae
from mae_jax.ops.pixels import normalize
from mae_jax.spec import build
from mae_jax.targets import Target, TargetContext
from mae_jax.targets.pixels import chosen_frames
from mae_jax.types import UserError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIDES = (2, 4, 3)
SPACE = (8, 8, 9)


def clips(channels=3, seed=0):
    """[2, 8, 8, 9, C] uint8, with one patch of one color."""
    images = np.random.default_rng(seed).integers(0, 256, (2, *SPACE, channels)).astype(np.uint8)
    images[0, :2, :4, :3] = 77
    return images


def computed(text, images):
    """Targets of all patches, and the pixels that they become."""
    target, channels = build(text, "targets", Target), images.shape[-1]
    context = TargetContext(
        patch=SIDES,
        take=lambda x: x,
        normalize=lambda x, pixels=1: normalize(x, MEAN[:channels], STD[:channels], pixels=pixels),
    )

    @jax.jit
    def run(images):
        made = target.make({}, images, context)
        return made, target.to_pixels({}, made, images, context)

    made, pixels = map(np.asarray, run(images))
    assert made.dtype == np.float32 and made.shape[2] == target.width(SIDES, channels)
    return made, pixels


def patches_by_loops(images):
    """[B, L, side, side, side, C] float64 in [0, 1]."""
    found = []
    for t, y, x in np.ndindex(*(n // side for n, side in zip(SPACE, SIDES, strict=True))):
        part = images[:, 2 * t : 2 * t + 2, 4 * y : 4 * y + 4, 3 * x : 3 * x + 3]
        found.append(part / 255.0)
    return np.stack(found, axis=1)


def inputs_of(patches):
    """As the encoder's: by mean and std of the pixels."""
    channels = patches.shape[-1]
    return ((patches - MEAN[:channels]) / STD[:channels]).reshape(*patches.shape[:2], -1)


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.thorough), 3])
def test_channels_of_a_patch_are_normalized_as_in_videomae(channels):
    """By the unbiased deviation over its pixels plus 1e-6; a patch of one color is zero."""
    images = clips(channels)
    patches = patches_by_loops(images)
    expected = np.zeros((*patches.shape[:2], 24, channels))
    for b, i, c in np.ndindex(*patches.shape[:2], channels):
        values = patches[b, i, ..., c].ravel()
        deviation = np.sqrt(((values - values.mean()) ** 2).sum() / (len(values) - 1))
        expected[b, i, :, c] = (values - values.mean()) / (deviation + 1e-6)
    found, pixels = computed("pixels(normalize=channels)", images)
    np.testing.assert_allclose(found[:, 1:], expected.reshape(*found.shape)[:, 1:], atol=2e-5)
    np.testing.assert_allclose(found[0, 0], 0, atol=0.1)  # rounding of a mean over 1e-6
    np.testing.assert_allclose(pixels, inputs_of(patches), atol=1e-4)


@pytest.mark.parametrize(
    ("length", "side", "frames", "expected"),
    [
        (16, 2, 1, [0, 2, 4, 6, 8, 10, 12, 15]),  # MAE_ST: linspace(0, 15, 8), rounded down
        (16, 2, 2, range(16)),
        (8, 4, 1, [0, 7]),
        (8, 4, 3, [0, 1, 2, 4, 5, 7]),
        (2, 2, 1, [0]),
    ],
)
def test_frames_are_evenly_spaced_and_hold_the_last(length, side, frames, expected):
    assert chosen_frames(length, side, frames).tolist() == list(expected)


@pytest.mark.parametrize(
    "text",
    ["channels", *(pytest.param(one, marks=pytest.mark.thorough) for one in ("True", "False"))],
)
def test_one_frame_of_each_patch_is_predicted(text):
    """The same as the target of whole patches of the chosen frames, each repeated in pictures."""
    images = clips()
    found, pixels = computed(f"pixels(normalize={text}, frames=1)", images)
    frames = images[:, [0, 2, 4, 7]]  # linspace(0, 7, 4)
    doubled = np.repeat(frames, 2, axis=1)
    same, _ = computed(f"pixels(normalize={text})", doubled)
    same = same.reshape(*same.shape[:2], 2, -1)
    values = patches_by_loops(doubled)[:, :, :1]
    if text == "True":  # over both of two equal frames the unbiased deviation is another one
        values = values.reshape(*values.shape[:2], -1, 3)
        values = ((values - MEAN) / STD).reshape(*values.shape[:2], -1)
        mean, variance = values.mean(2, keepdims=True), values.var(2, keepdims=True, ddof=1)
        np.testing.assert_allclose(found, (values - mean) / np.sqrt(variance + 1e-6), atol=2e-5)
    elif text == "False":
        np.testing.assert_array_equal(found, same[:, :, 0])
    else:
        ratio = np.sqrt((2 * 12 - 1) / (12 - 1) / 2)  # of the deviations, of 24 and of 12 pixels
        np.testing.assert_allclose(found[:, 1:], same[:, 1:, 0] / ratio, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(pixels, inputs_of(patches_by_loops(doubled)), atol=1e-4)


@pytest.mark.thorough
def test_a_method_predicts_as_many_values():
    """And its pictures have all frames, with a row for the target, which is not the original."""
    images = clips()
    method = mae.make(
        encoder="vit(width=12, depth=1, heads=2, patch=(2, 4, 3), class_tokens=0)",
        decoder_width=12,
        decoder_depth=1,
        decoder_heads=2,
        target="pixels(frames=1)",
        pool="mean",
    )

    @jax.jit
    def run(key):
        params, extra = method.init(key, {"image": images})
        batch = {"image": images}
        return params, method.loss(params, extra, batch, key, 0), method.draw(params, extra, batch)

    params, output, pictures = run(jax.random.key(0))
    assert params["decoder"]["predict"]["kernel"].shape == (12, 36) and np.isfinite(output.loss)
    assert {x.shape for x in pictures.values()} == {images.shape} and "target" in pictures
    assert "network output" in pictures  # not raw: it has fewer values than a patch


@pytest.mark.parametrize(
    ("text", "sides", "message"),
    [
        ("pixels(frames=3)", (2, 4), r"pixels\(frames=3\): a patch of 2 x 4 has 2 along"),
        ("pixels(normalize=channels)", (1, 1), "a patch of one value has no deviation"),
        ("pixels(normalize=channels, frames=1)", (2, 1, 1), "a patch of one value has no dev"),
        ("pixels(normalize=patch)", (2, 2), "choose True, False or channels"),
        ("pixels(frames=-1)", (2, 2), "must be 0, for all, or more"),
    ],
)
def test_what_cannot_be_predicted_is_refused(text, sides, message):
    with pytest.raises(UserError, match=message):
        build(text, "targets", Target).width(sides, 3)


def test_one_gray_pixel_is_refused():
    with pytest.raises(UserError, match="a patch of one value"):
        build("pixels", "targets", Target).width((1, 1), 1)
