"""What views compute from features and predictions, against NumPy in float64."""

import itertools
import warnings
import zlib
from base64 import b64decode

import numpy as np
import pytest

from mae_jax.explain import cka, colors, heat, layers, mask_ratio, reconstruction, similarity
from mae_jax.explain.page import of_maps
from mae_jax.explain.spectrum import variances
from mae_jax.explain.view import Vectors


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_components_are_those_of_a_singular_value_decomposition():
    x = normal(40, 6) * [5, 3, 2, 1, 0.5, 0.2] @ normal(6, 6, seed=1) + 10
    found, shares = colors.components(x.astype(np.float32), 3)
    values, rows = np.linalg.svd(x - x.mean(axis=0))[1:]
    for one, row in zip(found, rows, strict=False):
        assert one[np.abs(one).argmax()] > 0  # the sign
        np.testing.assert_allclose(abs(one @ row), 1, rtol=1e-6)
        np.testing.assert_allclose(one * np.sign(one @ row), row, atol=1e-4)
    np.testing.assert_allclose(shares, (values**2 / np.sum(values**2))[:3], rtol=1e-4)


def test_the_threshold_separates_two_groups_best():
    values = np.concatenate([normal(60), 6 + normal(30, seed=1)])
    found = colors.threshold(values)

    def within(limit):  # what Otsu minimizes
        groups = [values[values > limit], values[values <= limit]]
        return sum(len(group) * group.var() for group in groups if len(group))

    edges = np.linspace(values.min(), values.max(), colors.BINS + 1)[1:-1]
    assert within(found) == pytest.approx(min(within(edge) for edge in edges), rel=1e-12)
    assert 1 < found < 5


def test_the_foreground_is_not_at_the_border():
    front = np.zeros((2, 5, 6), bool)
    front[0, 1:4, 2:4] = front[1, 2:4, 1:5] = True
    for sign in (1, -1):
        scores = sign * np.where(front, 4.0, -1.0) + 0.1 * normal(2, 5, 6)
        found = colors.foreground(scores.reshape(2, 30), (5, 6))
        np.testing.assert_array_equal(found, front.reshape(2, 30))
    assert colors.foreground(normal(2, 4), (2, 2)).shape == (2, 4)  # border alone


def test_colors_are_components_of_selected_rows():
    x, selected = normal(30, 5) * [4, 3, 2, 1, 1], np.arange(30) % 3 > 0
    found = colors.colors_of(x, selected)
    rows = x[selected] - x[selected].mean(axis=0)
    axes = np.linalg.svd(rows, full_matrices=False)[2][:3]
    axes = axes * np.sign(axes[np.arange(3), np.abs(axes).argmax(axis=1)])[:, None]
    values = rows @ axes.T
    expected = (values - values.min(axis=0)) / np.ptp(values, axis=0)
    np.testing.assert_allclose(found[selected], expected, atol=1e-9)
    assert not found[~selected].any()


def test_linear_cka_is_that_of_centered_gram_matrices():
    x, y = normal(12, 5) + 3, normal(12, 4, seed=1)
    center = np.eye(12) - 1 / 12
    a, b = (center @ z @ z.T @ center for z in (x, y))
    expected = np.trace(a @ b) / np.sqrt(np.trace(a @ a) * np.trace(b @ b))
    assert cka.linear_cka(x, y) == pytest.approx(expected, rel=1e-12)
    turned = np.linalg.qr(normal(5, 5, seed=2))[0]
    assert cka.linear_cka(x, 3 * x @ turned + 1) == pytest.approx(1, rel=1e-12)


def test_the_estimate_without_bias_is_the_mean_over_four_images():
    """Of all tuples of four different ones, as the U-statistic of Song et al. is defined."""
    x, y = normal(6, 3), normal(6, 2, seed=1)
    a, b = cka.gram(x), cka.gram(y)
    tuples = list(itertools.permutations(range(6), 4))
    total = sum(
        a[i, j] * b[i, j] + a[i, j] * b[q, r] - 2 * a[i, j] * b[i, q] for i, j, q, r in tuples
    )
    assert cka.hsic(a, b) == pytest.approx(total / len(tuples), rel=1e-10)
    wide = [normal(40, 200, seed=seed) for seed in (3, 4)]  # unrelated, with many dimensions
    assert cka.linear_cka(*wide) > 0.7
    assert abs(cka.unbiased_cka(*map(cka.gram, wide))) < 0.15
    assert cka.unbiased_cka(a, 4 * a) == pytest.approx(1, rel=1e-12)


def test_few_coordinates_keep_the_products():
    x = similarity.centered(normal(3, 20, 30) * 0.7 ** np.arange(30), np.zeros(30))
    flat = x.reshape(60, 30)
    found, error = similarity.reduced(flat)
    worst = np.abs(found.astype(np.float64) @ found.T - flat @ flat.T).max()
    assert found.shape[1] < 30 and worst <= similarity.ERROR
    assert worst == pytest.approx(error, abs=1e-5)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1, rtol=1e-12)
    # What the page has of them, in bytes.
    (packed,) = of_maps(Vectors({"": found.reshape(3, 20, -1)}))["vectors"]
    values = np.frombuffer(zlib.decompress(b64decode(packed["values"])), np.int8)
    values = values.reshape(60, -1) * packed["scales"]
    assert np.abs(values @ values.T - flat @ flat.T).max() < 0.03


def test_each_image_is_classified_by_the_others():
    labels = np.arange(24) % 3
    x = np.eye(3)[labels] + 0.4 * normal(24, 3)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    hits = 0
    for row in range(24):
        others = [n for n in range(24) if n != row]
        near = sorted(others, key=lambda n: -unit[row] @ unit[n])[:5]
        votes = np.zeros(3)
        for n in near:
            votes[labels[n]] += np.exp(unit[row] @ unit[n] / 0.07)
        hits += votes.argmax() == labels[row]
    assert layers.left_one_out(x.astype(np.float32), labels, 5) == pytest.approx(hits / 24)
    assert 8 < hits < 24


def test_masked_features_are_compared_with_whole_ones():
    whole, masked = normal(20, 4) + 5, normal(20, 4) + 5 + 0.5 * normal(20, 4, seed=1)
    mean = whole.mean(axis=0)
    expected = [
        (a - mean) @ (b - mean) / np.linalg.norm(a - mean) / np.linalg.norm(b - mean)
        for a, b in zip(whole, masked, strict=True)
    ]
    assert mask_ratio.cosines(whole, masked) == pytest.approx(np.mean(expected))
    assert mask_ratio.cosines(whole, whole) == pytest.approx(1)
    unit = lambda x: x / np.linalg.norm(x)
    shares = []
    for row in range(20):
        others = [n for n in range(20) if n != row]
        near = [
            {*sorted(others, key=lambda n, x=x: -unit(x[row]) @ unit(whole[n]))[:3]}
            for x in (whole, masked)
        ]
        shares.append(len(near[0] & near[1]) / 3)
    assert mask_ratio.agreement(whole, masked, 3) == pytest.approx(np.mean(shares))
    assert 0 < np.mean(shares) < 1


def test_spread_is_of_masked_predictions_alone():
    values, masked = normal(5, 2, 3, 4), np.random.default_rng(0).random((5, 2, 3)) < 0.6
    masked[:, 0, 0] = False
    masked[:, 0, 1] = [True, False, False, False, False]
    hidden = np.where(masked[..., None], values, np.nan)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        mean = np.nanmean(hidden, axis=0)
        deviation = np.sqrt(np.nanvar(hidden, axis=0).mean(axis=-1))
    np.testing.assert_allclose(reconstruction.mean_where(values, masked), mean)
    found = reconstruction.spread_where(values, masked)
    assert np.isnan(found[0, :2]).all()
    deviation[masked.sum(axis=0) < 2] = np.nan
    np.testing.assert_allclose(found, deviation)


def test_variances_of_components():
    x = normal(30, 5) + 2
    expected = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
    np.testing.assert_allclose(variances(x), expected, rtol=1e-10)


def test_maps_are_quantized_by_their_largest_weight():
    weights = np.random.default_rng(0).random((2, 3, 10)) ** 4
    shades, peaks = heat.shades(weights)
    assert shades.dtype == np.uint8 and (shades.max(axis=-1) == heat.SHADES).all()
    np.testing.assert_allclose(peaks, weights.max(axis=-1), rtol=1e-6)
    again = np.square(shades / heat.SHADES) * peaks[..., None]
    assert np.abs(np.sqrt(again) - np.sqrt(weights)).max() <= 0.51 / heat.SHADES
    assert not heat.shades(np.zeros((1, 4)))[0].any()


def test_pictures_of_patches():
    values = np.arange(12.0).reshape(2, 6)
    cells = heat.spread(values, (2, 3), (4, 12))
    assert cells.shape == (2, 4, 12)
    np.testing.assert_array_equal(cells[1, ::2, ::4], values[1].reshape(2, 3))
    colored = heat.colored(np.array([0, 1, np.nan]), 0, 1)
    assert colored.tolist() == [*heat.palette(heat.SEQUENTIAL, 2).tolist(), [160] * 3]
    whole = heat.spread(heat.colored(values, 0, 11), (2, 3), (400, 600))
    assert len(heat.picture_uri(whole[0], (2, 3))) < 400  # six pixels, not 400 x 600
    gray = np.full((1, 4, 12, 1), 90, np.uint8)
    assert heat.heat(gray, values[:1], (2, 3)).shape == (1, 4, 12, 3)
