"""Sine-cosine position embeddings against the formula, written as loops over float64 numbers."""

import itertools
import math

import numpy as np
import pytest

from mae_jax.ops.posemb import sincos, with_prefix
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
