"""Block-wise and grid-wise masks of signals and volumes."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax import masks
from mae_jax.masks import MaskContext, Strategy, block
from mae_jax.spec import build
from mae_jax.types import UserError


def masks_of(spec, grid, *ratios, batch=16):
    """[batch, *grid] bool, True = masked, for each ratio."""
    context, strategy = MaskContext(grid=grid, batch=batch), build(spec, "masks")
    draw = jax.jit(lambda key: [masks.sample(key, strategy, context, r).mask for r in ratios])
    return [np.asarray(mask).reshape(batch, *grid) for mask in draw(jax.random.key(0))]


@pytest.mark.parametrize(
    "spec", ["random", "block", pytest.param("block(blocks=3)", marks=pytest.mark.thorough), "grid"]
)
def test_a_volume_of_64_patches_has_masks_of_64(spec):
    """Once only the first two axes counted: 16 of 64."""
    (found,) = masks_of(spec, (4, 4, 4), 0.75)
    np.testing.assert_array_equal(found.sum(axis=(1, 2, 3)), 48)
    if spec == "random":
        assert found.any(axis=0).all(), "every part of the volume is masked somewhere"


def test_a_strategy_that_scores_another_number_of_patches_is_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Flat(Strategy):
        def score(self, key, context):
            return jnp.zeros((context.batch, context.grid[0] * context.grid[1]))

    context = MaskContext(grid=(4, 4, 4), batch=2)
    with pytest.raises(UserError, match=r"have the shape \[2, 16\] and must be .* = \[2, 64\]"):
        masks.sample(jax.random.key(0), Flat(), context, 0.5)


def test_grid_masks_of_volumes():
    z, y, x = np.indices((4, 6, 2))
    eighth = (z % 2 == 0) & (y % 2 == 0) & (x % 2 == 0)
    few, half, between = masks_of("grid", (4, 6, 2), 0.875, 0.5, 0.75)
    for mask in few:
        np.testing.assert_array_equal(~mask, eighth)
    for mask in half:
        np.testing.assert_array_equal(~mask, (z + y + x) % 2 == 0)
    for mask in between:
        assert (eighth <= ~mask).all() and (~mask <= ((z + y + x) % 2 == 0)).all()


def test_grid_masks_of_signals_keep_every_second_patch():
    for mask in masks_of("grid", (10,), 0.5)[0]:
        np.testing.assert_array_equal(np.flatnonzero(~mask), range(0, 10, 2))


def test_a_small_block_of_a_signal_is_one_interval():
    for mask in masks_of("block", (100,), 0.07)[0]:
        first, *_, last = np.flatnonzero(mask)
        assert last - first == 6 and mask.sum() == 7


def test_a_small_block_of_a_volume_is_one_box_that_is_cut_at_its_end():
    """5% are less than any block has."""
    for mask in masks_of("block", (8, 8, 8), 0.05)[0]:
        places = np.argwhere(mask)
        low, high = places.min(axis=0), places.max(axis=0) + 1
        inside = [places_in_order for places_in_order in itertools.product(*map(range, low, high))]
        assert sorted(map(tuple, places)) == inside[: len(places)]


def test_blocks_have_volumes_and_aspects_in_range():
    volume = np.full((4000, 1, 1), 64, np.float32)
    draw = jax.jit(lambda key, volume: {n: block._sides(key, volume, n) for n in (1, 2, 3)})
    for rank, sides in draw(jax.random.key(0), volume).items():
        sides = np.stack(sides)[:, :, 0, 0]
        np.testing.assert_allclose(sides.prod(axis=0), 64, rtol=1e-4)
        cube = 64 ** (1 / rank)
        aspects = (sides / cube) ** rank  # of all but the last, exp(uniform)
        assert (aspects[: rank - 1] >= 0.2999).all() and (aspects[: rank - 1] <= 3.334).all()
        if rank > 1:
            assert np.log(aspects[:-1]).std() == pytest.approx(2 * np.log(1 / 0.3) / 12**0.5, 0.05)
        if rank == 2:
            ratios = sides[0] / sides[1]
            assert ratios.min() == pytest.approx(0.3, 0.02)
            assert ratios.max() == pytest.approx(1 / 0.3, 0.02)


@pytest.mark.parametrize("grid", [(64,), (8, 32), (6, 12, 12)])
def test_drawn_boxes_have_their_share_where_the_grid_does_not_clip_them(grid):
    draw = jax.jit(lambda key: block.make(blocks=1).score(key, MaskContext(grid=grid, batch=1000)))
    scores = draw(jax.random.key(0))
    length, whole = np.prod(grid), 0
    for box in (np.asarray(scores) > 1).reshape(1000, *grid):
        lines = [box.any(axis=tuple({*range(len(grid))} - {i})) for i in range(len(grid))]
        sides = np.array([line.sum() for line in lines])
        assert sides.prod() == box.sum(), "one box"
        assert np.prod(sides - 0.5) <= 0.3 * length, "before rounding at most 30%"
        if (sides < grid).all():
            assert np.prod(sides + 0.5) >= 0.08 * length
            whole += 1
    assert whole > 100


def test_fewer_blocks_leave_more_to_chance():
    def pieces(masks):
        same = [(masks == np.roll(masks, 1, axis=axis)).mean() for axis in (1, 2, 3)]
        return np.mean(same)

    few, many = (masks_of(f"block(blocks={n})", (8, 8, 8), 0.75)[0] for n in (1, 32))
    assert pieces(few) < pieces(many) - 0.05
