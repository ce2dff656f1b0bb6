"""Sine-cosine position embeddings against the formula, written as loops over float64 numbers."""

import math

import numpy as np
import pytest

from mae_jax.ops.posemb import sincos_2d, with_class_token
from mae_jax.types import UserError


def sincos_by_loops(grid, width):
    """x before y, [sin | cos] in each, frequencies 10000^(-k / (width / 4)), k < width / 4."""
    quarter = width // 4
    rows = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            row = []
            for position in (x, y):
                for function in (math.sin, math.cos):
                    for k in range(quarter):
                        row.append(function(position / 10000 ** (k / quarter)))
            rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(
    ("grid", "width"), [((14, 14), 32), ((3, 5), 8), ((5, 3), 12), ((1, 7), 4), ((2, 2), 384)]
)
def test_formula(grid, width):
    embedding = sincos_2d(grid, width)
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(embedding, sincos_by_loops(grid, width).astype(np.float32))


def test_large_grids_are_computed_in_float64():
    """In float32 the angles of column 1000 would be wrong by 3e-5."""
    embedding = sincos_2d((1, 1001), 64)[-1]
    np.testing.assert_allclose(embedding, sincos_by_loops((1, 1001), 64)[-1], atol=1e-7, rtol=0)


def test_the_class_token_stands_before_the_patches_at_zero():
    table = with_class_token((3, 5), 8)
    assert table.dtype == np.float32 and table.shape == (16, 8)
    np.testing.assert_array_equal(table[0], 0)
    np.testing.assert_array_equal(table[1:], sincos_by_loops((3, 5), 8).astype(np.float32))


@pytest.mark.parametrize("width", [1, 6, 10, 766])
def test_width_that_is_not_a_multiple_of_4(width):
    with pytest.raises(UserError, match=f"width {width} is not a multiple of 4"):
        sincos_2d((2, 2), width)
