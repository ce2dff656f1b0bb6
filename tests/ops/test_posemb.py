"""Sine-cosine position embeddings against the formula, written as loops over float64 numbers."""

import itertools
import math

import numpy as np
import pytest

from mae_jax.ops.posemb import flat_sincos, sincos, with_prefix
from mae_jax.types import UserError


def sincos_by_loops(grid, width):
    """The last axis first, [sin | cos] in each, frequencies 10000^(-k / count), k < count."""
    count = width // (2 * len(grid))
    rows = []
    for place in itertools.product(*map(range, grid)):
        row = []
        for position in reversed(place):
            for function in (math.sin, math.cos):
                for k in range(count):
                    row.append(function(position / 10000 ** (k / count)))
        rows.append(row + [0.0] * (width - len(row)))
    return np.array(rows)


@pytest.mark.parametrize(
    ("grid", "width"),
    [
        *[((14, 14), 32), ((3, 5), 8), ((5, 3), 12), ((1, 7), 4), ((2, 2), 384)],
        *[((9,), 6), ((9,), 7), ((3, 4), 10)],
        *[((2, 3, 4), 12), ((2, 3, 4), 32), ((3, 2, 2), 16), ((2, 1, 2, 3), 16)],
    ],
)
def test_formula(grid, width):
    embedding = sincos(grid, width)
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(embedding, sincos_by_loops(grid, width).astype(np.float32))


def test_channels_that_axes_cannot_share_are_zero_at_the_end():
    """768 channels of 3 axes: 256 each; 32: 10 each, and 2 are left."""
    assert (
        not sincos((2, 3, 4), 32)[:, 30:].any() and sincos((2, 3, 4), 32)[:, :30].any(axis=0).all()
    )
    assert sincos((9, 9, 9), 768)[-1, 767] != 0


def test_large_grids_are_computed_in_float64():
    """In float32 the angles of column 1000 would be wrong by 3e-5."""
    embedding = sincos((1, 1001), 64)[-1]
    np.testing.assert_allclose(embedding, sincos_by_loops((1, 1001), 64)[-1], atol=1e-7, rtol=0)


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_class_tokens_stand_before_the_patches_at_zero(prefix):
    table = with_prefix((3, 5), 8, prefix)
    assert table.dtype == np.float32 and table.shape == (prefix + 15, 8)
    np.testing.assert_array_equal(table[:prefix], 0)
    np.testing.assert_array_equal(table[prefix:], sincos_by_loops((3, 5), 8).astype(np.float32))


@pytest.mark.parametrize(("grid", "width"), [((4,), 1), ((2, 2), 3), ((2, 2, 2), 5)])
def test_width_that_is_too_small(grid, width):
    with pytest.raises(UserError, match=f"width {width} is too small .* at least {2 * len(grid)}"):
        sincos(grid, width)


def test_flat_positions_are_those_of_videomae():
    """Sines and cosines in turn, of the number of the patch in the whole clip."""
    for grid, width in (((2, 3, 4), 16), ((8, 14, 14), 768), ((5,), 7)):
        expected = np.empty((math.prod(grid), width))
        for number in range(len(expected)):
            for channel in range(width):
                angle = number / 10000 ** (2 * (channel // 2) / width)
                expected[number, channel] = (math.sin, math.cos)[channel % 2](angle)
            if number > 40:  # the rest is the same formula
                break
        table = flat_sincos(grid, width)
        assert table.dtype == np.float32 and table.shape == (math.prod(grid), width)
        np.testing.assert_array_equal(table[: number + 1], expected[: number + 1].astype("f"))


def test_positions_in_centimeters():
    """Slices of 5 mm and pixels of 0.8 mm, in patches of 2 x 4 x 8: the center of each patch."""
    extent, width = (2 * 5.0, 4 * 0.8, 8 * 0.8), 24
    table = sincos((3, 2, 4), width, extent)
    for row, place in zip(table, itertools.product(range(3), range(2), range(4)), strict=True):
        centimeters = [(n + 0.5) * mm / 10 for n, mm in zip(place, extent, strict=True)]
        angles = [[x / 10000 ** (k / 4) for k in range(4)] for x in reversed(centimeters)]
        expected = [f(a) for axis in angles for f in (math.sin, math.cos) for a in axis]
        np.testing.assert_array_equal(row, np.float32(expected))


def test_equal_distances_have_equal_positions():
    """The center of a patch of 6 mm is that of the second of three patches of 2 mm."""
    fine, coarse = sincos((1, 6), 8, (1.0, 2.0)), sincos((1, 2), 8, (1.0, 6.0))
    np.testing.assert_array_equal(fine[[1, 4]], coarse)
