"""Masks of clips: tubes and whole frames, against plain statements about numpy arrays."""

import math

import jax
import numpy as np
import pytest

from mae_jax import masks
from mae_jax.masks import MaskContext
from mae_jax.masks.block import make as make_block
from mae_jax.types import UserError

KEY = jax.random.key(3)


def drawn(text, grid, ratio, batch=6):
    """[batch, *grid] bool, True = masked, after checks of the order and of the other fields."""
    strategy, context = masks.make_strategy(text), MaskContext(grid=grid, batch=batch)
    mask = jax.jit(lambda key: masks.sample(key, strategy, context, ratio))(KEY)
    hidden, length = np.asarray(mask.mask), math.prod(grid)
    order = np.concatenate([mask.keep, mask.masked], axis=1)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(length), (batch, 1)))
    assert not np.take_along_axis(hidden, np.asarray(mask.keep), axis=1).any()
    assert mask.keep.shape[1] == strategy.visible(grid, ratio) >= 1
    return hidden.reshape(batch, *grid)


@pytest.mark.parametrize("steps", [pytest.param(1, marks=pytest.mark.thorough), 3])
def test_a_tube_is_masked_at_all_times(steps):
    hidden = drawn("tube", (steps, 5, 7), 0.9)
    assert (hidden == hidden[:, :1]).all()
    assert ((~hidden[:, 0]).sum(axis=(1, 2)) == 3).all()  # floor(35 * 0.1)
    assert len({row.tobytes() for row in hidden}) > 1  # of each clip its own


def test_videomaes_number_of_tubes():
    """176 of 196 are masked, as int(0.9 * 196) is in its code; 160 patches of 1,568 are visible."""
    assert (~drawn("tube", (8, 14, 14), 176 / 196, 2)).sum(axis=(1, 2, 3)).tolist() == [160, 160]


def test_tubes_of_another_mask_are_that_mask():
    frame = MaskContext(grid=(6, 6), batch=6)
    blocks = jax.jit(lambda key: masks.sample(key, make_block(blocks=3), frame, 0.5).mask)(KEY)
    hidden = drawn("tube('block(blocks=3)')", (4, 6, 6), 0.5)
    np.testing.assert_array_equal(hidden, np.tile(blocks.reshape(6, 1, 6, 6), (1, 4, 1, 1)))


@pytest.mark.parametrize(("steps", "ratio", "seen"), [(3, 0.5, 1)])
def test_whole_times_are_masked(steps, ratio, seen):
    hidden = drawn("time", (steps, 3, 4), ratio).reshape(6, steps, 12)
    assert (hidden == hidden[:, :, :1]).all()
    assert ((~hidden[:, :, 0]).sum(axis=1) == seen).all()


@pytest.mark.thorough
def test_every_tube_and_frame_is_masked_as_often_as_the_others():
    """Of 4,000 draws at 75%: within five standard deviations."""
    sigma = math.sqrt(0.25 * 0.75 / 4000)
    for text, axes in (("tube", 1), ("time", (2, 3))):
        share = drawn(text, (4, 2, 2), 0.75, 4000).mean(axis=axes).mean(axis=0)
        assert np.abs(share - 0.75).max() < 5 * sigma, text


@pytest.mark.thorough
def test_units_of_tubes():
    hidden = drawn("tube('random(unit=2)')", (3, 4, 4), 0.75).reshape(6, 3, 2, 2, 2, 2)
    assert (hidden == hidden[:, :1, :, :1, :, :1]).all()


@pytest.mark.parametrize(
    ("text", "grid", "ratio", "message"),
    [
        ("tube", (16,), 0.5, "mask tube: a grid of 16 patches has one axis"),
        ("tube", (4, 2, 2), 0.9, "mask_ratio 0.9 leaves none of 4 patches visible"),
        ("time", (4, 8, 8), 0.9, "mask_ratio 0.9 leaves none of 4 patches visible"),
        ("tube(rnadom)", (4, 4, 4), 0.5, "masks has no 'rnadom'"),
    ],
)
def test_impossible_masks_are_refused(text, grid, ratio, message):
    with pytest.raises(UserError, match=message):
        masks.sample(KEY, masks.make_strategy(text), MaskContext(grid=grid, batch=1), ratio)
