"""Masks from colored noise: the filter, the measured spectrum, and what the masks look like."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mae_jax import masks
from mae_jax.masks import MaskContext, noise
from mae_jax.types import UserError

KEY = jax.random.key(0)
SIGMAS = {"green": (0.5, 2.0), "blue": (0.0, 1.0), "red": (1.0, None)}
"""None: the second Gaussian is so wide that nothing of it is left but the mean."""


@functools.cache
def scores_of(color, grid, batch):
    """[batch, L]."""
    context = MaskContext(grid=grid, batch=batch)
    return np.asarray(jax.jit(lambda key: noise.make(color=color).score(key, context))(KEY))


def blurred(white, sigma):
    """Noise [B, *grid] blurred by a Gaussian along each axis, by sums over cosines in float64. A
    wave of k cycles on n patches shrinks to exp(-2 (pi sigma k / n)^2) of its size.
    """
    for axis, n in enumerate(white.shape[1:], start=1):
        k = np.minimum(np.arange(n), n - np.arange(n))
        waves = np.cos(2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
        kernel = waves @ np.exp(-2 * (np.pi * sigma * k / n) ** 2) / n
        shifts = (np.arange(n)[:, None] - np.arange(n)) % n
        white = np.moveaxis(np.moveaxis(white, axis, -1) @ kernel[shifts], -1, axis)
    return white


@pytest.mark.parametrize("color", SIGMAS)
@pytest.mark.parametrize("grid", [(9,), (6, 7), (4, 3, 5), (2, 3, 2, 3)])
def test_scores_are_the_difference_of_two_blurs_of_white_noise(color, grid):
    white = np.asarray(jax.random.normal(KEY, (3, *grid)), np.float64)
    narrow, wide = SIGMAS[color]
    expected = blurred(white, narrow) - (0 if wide is None else blurred(white, wide))
    scores = scores_of(color, grid, 3)
    np.testing.assert_allclose(scores.reshape(white.shape), expected, atol=2e-6)


@pytest.mark.parametrize("color", SIGMAS)
def test_the_spectrum_measured_over_examples(color):
    count, side = 4000, 14
    images = scores_of(color, (side, side), count).reshape(count, side, side).astype(np.float64)
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=0) / side**2
    f = np.sqrt(np.fft.fftfreq(side)[:, None] ** 2 + np.fft.fftfreq(side) ** 2)
    narrow, wide = SIGMAS[color]
    gauss = lambda s: np.exp(-2 * (np.pi * s * f) ** 2)
    expected = (gauss(narrow) - (0 if wide is None else gauss(wide))) ** 2
    np.testing.assert_allclose(power, expected, rtol=0.12, atol=1e-6)


def test_green_noise_has_a_period_of_about_five_patches():
    waves = np.fft.rfft(scores_of("green", (520,), 500)[:, :].astype(np.float64))
    power = (np.abs(waves) ** 2).mean(axis=0)
    smooth = np.convolve(power, np.ones(15) / 15, mode="same")
    assert 520 / smooth.argmax() == pytest.approx(5.2, rel=0.1)


def masked_neighbors(spec):
    """Of the pairs of neighbors with a masked patch, the share with two; of masks of 75%."""
    context = MaskContext(grid=(14, 14), batch=64)
    draw = jax.jit(lambda key: masks.sample(key, masks.make_strategy(spec), context, 0.75).mask)
    mask = np.asarray(draw(KEY)).reshape(64, 14, 14)
    assert (mask.sum(axis=(1, 2)) == 147).all()
    assert len({one.tobytes() for one in mask}) == 64, "fresh for each example"
    pairs = [(mask[:, 1:], mask[:, :-1]), (mask[:, :, 1:], mask[:, :, :-1])]
    return sum((a & b).sum() for a, b in pairs) / sum((a | b).sum() for a, b in pairs)


def test_colors_differ_in_how_masked_patches_cluster():
    shares = [
        masked_neighbors(spec)
        for spec in ("noise(color=blue)", "random", "noise(color=green)", "noise(color=red)")
    ]
    assert np.all(np.diff(shares) > 0.02), shares


def test_no_place_is_favored():
    """Counts of masked patches over 49 places: chi-square with 48 degrees of freedom. Neighbors are
    correlated, so its deviation is larger than for independent places.
    """
    scores = scores_of("green", (7, 7), 8000)
    masked = (scores > np.sort(scores, axis=1)[:, 11:12]).mean(axis=0)
    np.testing.assert_allclose(masked, 37 / 49, atol=5 * np.sqrt(0.185 / 8000))


def test_scores_do_not_depend_on_the_number_of_devices():
    context = MaskContext(grid=(4, 5), batch=8)
    draw = lambda key: masks.sample(key, noise.make(), context, 0.6)
    split = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("data",)), P("data"))
    one, two = jax.jit(draw)(KEY), jax.jit(draw, out_shardings=split)(KEY)
    for alone, shared in zip(one, two, strict=True):
        assert len(shared.sharding.device_set) == 2
        np.testing.assert_array_equal(alone, shared)


def test_scores_are_float32_and_colors_checked():
    assert noise.make().score(KEY, MaskContext(grid=(2, 2), batch=1)).dtype == jnp.float32
    with pytest.raises(UserError, match="mask noise: color 'gren' is unknown: choose green, blue"):
        noise.make(color="gren")
