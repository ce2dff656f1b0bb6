"""The photometric part of views: how often what is drawn, for which examples, and which images it
takes.
"""

import functools

import jax
import numpy as np
import pytest

from mae_jax.ops import views
from mae_jax.types import UserError

NONE = dict(jitter=(0, 0, 0, 0), blur=0, solarize=0)
KEY = jax.random.key(0)


@functools.cache
def photometric(**options):
    """Under jit."""
    return jax.jit(functools.partial(views.photometric, **NONE | options))


def run(images, key=KEY, **options):
    return np.asarray(photometric(**options)(key, images))


def noise(count=1, channels=3, seed=0):
    """`count` copies of one image [8, 8, channels] uint8."""
    image = np.random.default_rng(seed).integers(0, 256, (1, 8, 8, channels)).astype(np.uint8)
    return np.broadcast_to(image, (count, 8, 8, channels))


def share(rows):
    return np.mean(rows.reshape(len(rows), -1).any(axis=1))


def test_without_anything_to_do_pixels_are_only_scaled():
    images = noise(3)
    np.testing.assert_allclose(run(images), images / 255, rtol=1e-6)


@pytest.mark.parametrize("name", ["blur", "solarize"])
@pytest.mark.parametrize("probability", [0.1, pytest.param(0.5, marks=pytest.mark.thorough), 1.0])
def test_blur_and_solarize_come_as_often_as_they_should(name, probability):
    images = noise(2000)
    changed = np.abs(run(images, **{name: probability}) - images / 255) > 1e-5
    # A blur of deviation below 0.2, 5% of those between 0.1 and 2, changes next to nothing.
    visible = 0.95 if name == "blur" else 1
    assert share(changed) == pytest.approx(visible * probability, abs=0.02)


def test_solarize_inverts_the_bright_pixels():
    images = noise()
    plain = images / 255
    np.testing.assert_allclose(
        run(images, solarize=1.0), np.where(images > 127, 1 - plain, plain), atol=1e-6
    )


def test_jitter_comes_four_times_in_five_and_gray_once():
    images = noise(2000)
    out = run(images, jitter=(0.4, 0.4, 0.2, 0.1))
    gray = out.max(axis=-1) - out.min(axis=-1) < 1e-6
    plain = np.abs(out - images / 255) < 1e-5
    all_of = lambda x: np.mean(x.reshape(len(x), -1).all(axis=1))
    assert all_of(gray) == pytest.approx(0.2, abs=0.03)
    # Neither jittered nor gray.
    assert all_of(plain) == pytest.approx(0.2 * 0.8, abs=0.03)


@pytest.mark.parametrize("place", range(4))
def test_each_strength_belongs_to_its_adjustment(place):
    """A flat color tells them apart: brightness scales it, contrast mixes its own gray into it,
    saturation as well, hue keeps its largest and smallest channel.
    """
    image = np.broadcast_to(np.uint8([150, 100, 50]), (300, 8, 8, 3))
    jitter = [0.0] * 4
    jitter[place] = 0.3
    out = run(image, jitter=tuple(jitter))[:, 0, 0]
    chroma = np.ptp(out, axis=1)
    out, chroma = out[chroma > 1e-6], chroma[chroma > 1e-6]  # not those made gray
    before = np.array([150, 100, 50]) / 255
    luminance = lambda x: x @ [0.299, 0.587, 0.114]
    moved = np.abs(out - before).max(axis=1) > 1e-5
    assert 0.7 < moved.mean() < 0.9
    if place == 0:
        np.testing.assert_allclose(out / out[:, :1], before / before[0] + 0 * out, rtol=1e-4)
    if place in (1, 2):
        np.testing.assert_allclose(luminance(out), luminance(before), atol=1e-4)
        assert np.ptp(chroma) > 0.1
    if place == 3:
        np.testing.assert_allclose(out.max(axis=1), before.max(), rtol=1e-4)
        np.testing.assert_allclose(out.min(axis=1), before.min(), rtol=1e-4)


def test_everything_at_once_stays_in_range_and_differs_from_example_to_example():
    options = dict(jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5, solarize=0.2)
    out = run(noise(64), **options)
    assert out.dtype == np.float32 and 0 <= out.min() < out.max() <= 1
    assert len(np.unique(out.reshape(64, -1), axis=0)) > 50
    np.testing.assert_array_equal(out, run(noise(64), **options))
    assert not np.array_equal(out, run(noise(64), key=jax.random.key(1), **options))


@pytest.mark.parametrize("channels", [1, pytest.param(2, marks=pytest.mark.thorough), 5])
def test_images_without_color(channels):
    images = noise(32, channels)
    out = run(images, jitter=(0.4, 0.4, 0, 0), blur=0.5, solarize=0.2)
    assert out.shape == images.shape and 0 <= out.min() < out.max() <= 1
    # No gray: the channels of an image do not become one.
    if channels > 1:
        assert (np.ptp(out, axis=-1).max(axis=(1, 2)) > 1e-3).all()
    with pytest.raises(UserError, match=r"neither saturation nor hue, set jitter=\(0.4, 0.4, 0, 0"):
        run(images, jitter=(0.4, 0.4, 0.2, 0.1))


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(jitter=(0.5,)), "four numbers"),
        (dict(jitter=(0.5, 0.5, -0.1, 0)), "four numbers"),
        (dict(jitter=(0.5, 0.5, 0.5, 0.6)), "at most 0.5"),
        (dict(blur=1.5), "probabilities"),
        (dict(solarize=-0.5), "probabilities"),
    ],
)
def test_impossible_strengths_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        run(noise(), **options)


def test_views_are_interleaved_and_separated():
    one, two = np.arange(6).reshape(3, 2), 10 + np.arange(6).reshape(3, 2)
    both = views.interleave(one, two)
    np.testing.assert_array_equal(both[:, 0], [0, 10, 2, 12, 4, 14])
    for back, view in zip(views.separate(both), (one, two), strict=True):
        np.testing.assert_array_equal(back, view)
