"""Lab against scikit-image; bins, soft encoding, weights and decoding against float64 numpy."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.color import lab2rgb, rgb2lab

from mae_jax.ops import lab

# As a whole they compile faster than op by op.
rgb_to_lab, lab_to_rgb = jax.jit(lab.rgb_to_lab), jax.jit(lab.lab_to_rgb)


def colors():
    """[4000, 3] float32 sRGB: corners, dark ones on both sides of the bends, any."""
    rng = np.random.default_rng(0)
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), axis=-1).reshape(-1, 3)
    dark = rng.random((2000, 3)) * 0.1
    return np.concatenate([corners, dark, rng.random((1992, 3))]).astype(np.float32)


def points():
    """[3000, 3] float32 Lab: many out of the gamut, some with negative Z."""
    rng = np.random.default_rng(1)
    return rng.uniform([0, -120, -120], [100, 120, 120], (3000, 3)).astype(np.float32)


def rgb_of(values):
    """scikit-image's `lab2rgb` in float64, without its warning of colors out of the gamut."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lab2rgb(values.astype(np.float64))


def plane(count=2000):
    """[count, 2] float32 of ab, most of them in the gamut."""
    return np.random.default_rng(2).normal(0, 35, (count, 2)).astype(np.float32)


def test_lab_is_that_of_scikit_image():
    rgb = colors()
    found = rgb_to_lab(rgb)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rgb2lab(rgb.astype(np.float64)), atol=2e-4)
    found = lab_to_rgb(points())
    assert found.dtype == jnp.float32 and found.min() == 0 and found.max() == 1
    np.testing.assert_allclose(found, rgb_of(points()), atol=1e-5)


def test_lab_is_that_of_scikit_image_in_float64():
    rgb, values = colors().astype(np.float64), points().astype(np.float64)
    with jax.enable_x64(True):
        found, back = rgb_to_lab(jnp.asarray(rgb)), lab_to_rgb(jnp.asarray(values))
    assert found.dtype == back.dtype == np.float64
    np.testing.assert_allclose(found, rgb2lab(rgb), atol=1e-10)
    np.testing.assert_allclose(back, rgb_of(values), atol=1e-10)


def test_there_and_back():
    rgb = colors().reshape(40, 100, 3)
    np.testing.assert_allclose(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=1e-5)


def test_known_colors():
    """White is L 100 and gray, black is 0; the blue of sRGB is the bluest (values of Lindbloom's
    calculator, rounded).
    """
    rgb = jnp.array([[1.0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 0, 0]])
    expected = [[100, 0, 0], [0, 0, 0], [32.3, 79.2, -107.9], [53.2, 80.1, 67.2]]
    np.testing.assert_allclose(rgb_to_lab(rgb), expected, atol=0.1)


@pytest.mark.parametrize("function", [lab.rgb_to_lab, lab.lab_to_rgb])
def test_gradients_at_the_ends_and_in_between(function):
    """On black and white, the ends, they are finite; where there is no bend, those of
    differences.
    """
    inverse = function is lab.lab_to_rgb
    ends = [[0.0, 0, 0], [100.0, 0, 0], [100.0, 0, 60]] if inverse else [[0.0, 0, 0], [1.0, 1, 1]]
    function = jax.jit(function)
    gradient = jax.jit(jax.jacobian(function))
    for end in ends:
        assert np.isfinite(gradient(jnp.array(end))).all(), end
    inside = [[50.0, 10, 20], [1.0, 0.1, 0.2]] if inverse else [[0.3, 0.5, 0.7], [0.01, 0.02, 0.03]]
    with jax.enable_x64(True):
        for place in map(np.array, inside):
            steps = 1e-6 * np.eye(3)
            ups, downs = (function(jnp.asarray(place + s * steps)) for s in (1, -1))
            expected = (np.asarray(ups) - np.asarray(downs)).T / 2e-6
            found = gradient(jnp.asarray(place))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
            assert np.abs(expected).max() > 0.01


def test_the_bins_are_the_squares_with_a_color():
    centers = lab.bins()
    assert centers.shape == (261, 2) and centers.dtype == np.float32
    assert not centers.flags.writeable and len(np.unique(centers, axis=0)) == 261
    levels = np.arange(0, 256, 5) / 255
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    met = np.unique(np.rint(rgb2lab(cube)[:, 1:] / 10), axis=0) * 10
    known = {tuple(row) for row in centers}
    assert {tuple(row) for row in met} <= known
    # This coarser enumeration, of the whole cube, misses only a corner that few colors fill.
    assert len(met) >= 260


def test_the_nearest_bins_share_a_color():
    centers, ab = lab.bins(), plane()
    indices, weights = jax.jit(lab.encode_soft)(ab, centers)
    assert indices.shape == weights.shape == (2000, 5)
    for point, found, shares in zip(ab.astype(np.float64), indices, np.asarray(weights)):
        distance = np.hypot(*(centers.astype(np.float64) - point).T)
        nearest = np.argsort(distance)[:5]
        np.testing.assert_array_equal(found, nearest)
        expected = np.exp(-(distance[nearest] ** 2) / (2 * 5**2))
        # Far from the gamut squares of 100 and more are exponents: their float32 rounding shows.
        np.testing.assert_allclose(shares, expected / expected.sum(), rtol=5e-5)


def test_ties_and_options_of_the_soft_encoding():
    """Gray is the center of a bin, and its four neighbors are equally near."""
    centers = lab.bins()
    encode = jax.jit(lab.encode_soft, static_argnames=("neighbors", "sigma"))
    indices, weights = encode(jnp.zeros((2, 3, 2)), centers)
    assert indices.shape == (2, 3, 5)
    assert {tuple(row) for row in centers[np.asarray(indices[0, 0])]} == {
        (0.0, 0.0), (10.0, 0.0), (-10.0, 0.0), (0.0, 10.0), (0.0, -10.0)
    }  # fmt: skip
    one, rest = np.array([1, np.exp(-2)]) / (1 + 4 * np.exp(-2))
    np.testing.assert_allclose(weights[1, 2], [one, rest, rest, rest, rest], rtol=1e-6)
    indices, weights = encode(jnp.array([1.0, 2.0]), centers, neighbors=2, sigma=10.0)
    np.testing.assert_array_equal(centers[np.asarray(indices)], [[0, 0], [0, 10]])
    odds = np.exp(-(1 + 4) / 200), np.exp(-(1 + 64) / 200)
    np.testing.assert_allclose(weights, np.array(odds) / sum(odds), rtol=1e-6)


def test_the_histogram_adds_up_the_shares():
    ab = plane(240).reshape(2, 30, 4, 2)
    indices, weights = jax.jit(lab.encode_soft)(ab, lab.bins())
    found = jax.jit(lab.histogram, static_argnums=2)(indices, weights, 261)
    expected = np.zeros(261)
    for index, weight in zip(np.asarray(indices).ravel(), np.asarray(weights).ravel()):
        expected[index] += weight / 240
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert float(found.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("uniform", [0.01, 0.5, 1.0])
def test_class_weights(uniform):
    prior = np.random.default_rng(0).dirichlet(np.full(261, 0.1)).astype(np.float32)
    exact = prior.astype(np.float64)
    expected = ((1 - uniform) * exact + uniform / 261) ** -1.0
    expected /= np.dot(exact, expected)
    found = lab.class_weights(jnp.asarray(prior), uniform)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(np.dot(exact, found), 1, rtol=1e-5)
    assert uniform == 1 or found[prior.argmin()] > 1 > found[prior.argmax()]


@pytest.mark.parametrize("temperature", [0.38, 1.0])
def test_the_annealed_mean(temperature):
    logits = np.random.default_rng(0).normal(0, 3, (5, 7, 261)).astype(np.float32)
    odds = np.exp(logits.astype(np.float64))  # any multiple of the probabilities
    odds = odds ** (1 / temperature)
    expected = odds @ lab.bins().astype(np.float64) / odds.sum(axis=-1, keepdims=True)
    options = {} if temperature == 0.38 else {"temperature": temperature}
    found = lab.annealed_mean(jnp.asarray(logits), lab.bins(), **options)
    np.testing.assert_allclose(found, expected, atol=5e-5)


def test_the_annealed_mean_tends_to_the_mode():
    logits = jnp.zeros(261).at[7].set(1.0)
    found = lab.annealed_mean(logits, lab.bins(), temperature=0.01)
    np.testing.assert_allclose(found, lab.bins()[7], atol=1e-4)
