"""Resizing and pooling by matrices: equal to loops in float64, and to torch."""

import math

import jax
import numpy as np
import pytest

from mae_jax.ops.interpolate import adaptive_pool, along_axes, bilinear_matrix, pool_matrix, resize

SIZES = [(1, 1), (1, 5), (5, 1), (4, 4), (16, 4), (7, 3), (3, 7), (10, 12), (24, 32)]


@pytest.mark.parametrize(("new", "old"), SIZES)
def test_resizing_is_linear_between_pixel_centers(new, old):
    values = np.random.default_rng(0).normal(size=old)
    for i in range(new):
        at = (i + 0.5) * old / new - 0.5
        low = math.floor(at)
        first, second = (values[min(max(j, 0), old - 1)] for j in (low, low + 1))
        expected = first * (1 - (at - low)) + second * (at - low)
        np.testing.assert_allclose(bilinear_matrix(new, old)[i] @ values, expected, atol=1e-6)


@pytest.mark.parametrize(("bins", "length"), [(1, 4), (2, 5), (3, 3), (6, 16), (6, 4), (3, 7)])
def test_bins_of_pooling_overlap_where_they_do_not_divide(bins, length):
    values = np.random.default_rng(0).normal(size=length)
    for i in range(bins):
        covered = [v for j, v in enumerate(values) if j + 1 > i * length / bins]
        covered = covered[: math.ceil((i + 1) * length / bins) - math.floor(i * length / bins)]
        found = pool_matrix(bins, length)[i] @ values
        np.testing.assert_allclose(found, np.mean(covered), atol=1e-6)


def test_maps_are_those_of_torch():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    theirs = torch.tensor(x.transpose(0, 3, 1, 2))
    for size in ((5, 7), (20, 28), (9, 4), (3, 8)):
        expected = torch.nn.functional.interpolate(
            theirs, size=size, mode="bilinear", align_corners=False
        )
        found = jax.jit(resize, static_argnums=1)(x, size)
        np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), atol=1e-5)
    for bins in (1, 2, 3, 6):
        expected = torch.nn.functional.adaptive_avg_pool2d(theirs, bins)
        np.testing.assert_allclose(adaptive_pool(x, bins), expected.permute(0, 2, 3, 1), atol=1e-6)


def test_the_order_of_the_axes_does_not_matter():
    x = np.random.default_rng(0).normal(size=(1, 6, 5, 2)).astype(np.float32)
    rows, columns = bilinear_matrix(3, 6), bilinear_matrix(9, 5)
    expected = np.einsum("yh,xw,bhwc->byxc", rows, columns, x)
    np.testing.assert_allclose(along_axes(x, rows, columns), expected, atol=1e-6)
    assert along_axes(x.astype("bfloat16"), rows, columns).dtype == "bfloat16"
