"""Units of several patches: one coarser grid for every strategy, exact ratios, ties, tubes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax import masks, project
from mae_jax.masks import MaskContext, Strategy, Units
from mae_jax.spec import build
from mae_jax.types import UserError
from tests.helpers.tiny_args import make_tiny

KEY = jax.random.key(1)


def expected(scores, coarse, sides, visible):
    """[B, L] bool from the scores of units, one example and one unit after another."""
    rows = []
    for row in np.asarray(scores, np.float64):
        order = {int(cell): rank for rank, cell in enumerate(np.argsort(row, kind="stable"))}
        grid = [n * side for n, side in zip(coarse, sides)]
        cells = np.stack(np.unravel_index(np.arange(math.prod(grid)), grid), axis=1) // sides
        numbers = [order[int(np.ravel_multi_index(tuple(cell), coarse))] for cell in cells]
        kept = sorted(range(len(numbers)), key=lambda i: (numbers[i], i))[:visible]
        rows.append(np.isin(np.arange(len(numbers)), kept, invert=True))
    return np.stack(rows)


@pytest.mark.parametrize(
    ("name", "grid", "unit", "ratio"),
    [
        ("random", (4, 6), 2, 0.75),  # 6 of 24: one unit and half of one
        ("block(blocks=3)", (8, 8), (2, 4), 0.6),
        ("grid", (8, 4), 2, 0.5),
        ("noise", (4, 4, 4), (4, 1, 1), 0.7),
        ("random", (12,), 3, 0.5),
        ("random", (6, 6), 1, 0.75),
    ],
)
def test_units_are_masked_as_the_patches_of_a_coarser_grid(name, grid, unit, ratio):
    sides = unit if isinstance(unit, tuple) else (unit,) * len(grid)
    coarse = tuple(n // side for n, side in zip(grid, sides))
    text = f"{name[:-1]}, unit={unit})" if name.endswith(")") else f"{name}(unit={unit})"
    context = MaskContext(grid=grid, batch=5)

    @jax.jit
    def draw(key):
        units = build(name, "masks").score(key, dataclasses.replace(context, grid=coarse))
        scores = masks.make_strategy(text).score(key, context)
        return units, scores, masks.sample(key, masks.make_strategy(text), context, ratio).mask

    units, scores, mask = draw(KEY)
    assert scores.shape == (5, math.prod(grid)) and scores.dtype == jnp.float32
    visible = math.floor(math.prod(grid) * (1 - ratio) + 1e-9)
    np.testing.assert_array_equal(mask, expected(units, coarse, sides, visible))
    assert ((~np.asarray(mask)).sum(axis=1) == visible).all()


def drawn(strategy, grid, ratio, batch):
    """[batch, *grid] bool, True = masked."""
    context = MaskContext(grid=grid, batch=batch)
    draw = jax.jit(lambda key: masks.sample(key, strategy, context, ratio).mask)
    return np.asarray(draw(KEY)).reshape(batch, *grid)


def test_a_tube_is_masked_in_all_frames():
    strategy = masks.make_strategy("random(unit=(4, 1, 1))")
    mask = drawn(strategy, (4, 3, 5), 0.8, 8).reshape(8, 4, 15)
    assert (mask == mask[:, :1]).all() and (mask.sum(axis=2) == 12).all()


def test_units_with_equal_scores_do_not_mix():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Constant(Strategy):
        def score(self, key, context):
            return jnp.zeros((context.batch, context.length))

    mask = drawn(Units(strategy=Constant(), unit=2), (4, 4), 0.625, 1)
    pattern = [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    np.testing.assert_array_equal(mask[0], pattern)


def test_a_mask_of_the_users_own_has_units(at):
    at(project.EXTENSIONS)
    strategy = masks.make_strategy("my_project.mask(width=2, unit=2)")
    columns = drawn(strategy, (4, 16), 0.75, 3).reshape(3, 4, 4, 4)  # of 2 units of 2 columns
    assert (columns == columns[:, :1, :, :1]).all()


def test_a_unit_is_an_option_of_a_method():
    method = make_tiny("methods.mae", mask="random(unit=2)", mask_ratio=0.5)
    images = np.zeros((6, 16, 16, 3), np.uint8)
    mask = np.asarray(jax.jit(method.draw_mask)(KEY, images).mask).reshape(6, 2, 2, 2, 2)
    assert (mask == mask[:, :, :1, :, :1]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random(unit=4)", "mask unit=4 does not divide the grid of 6 x 6 patches: give a divisor"),
        ("random(unit=(2, 2, 2))", r"unit=\(2, 2, 2\) does not divide the grid of 6 x 6"),
        ("random(unit=0)", "unit=0 must be at least 1"),
        ("random(unit=(2, -1))", r"unit=\(2, -1\) must be at least 1"),
        ("random(unit=())", r"unit=\(\) must be at least 1"),
        ("random(unit=1.5)", "unit=1.5 should be of type int or tuple of int"),
        ("block(unit=2, block=3)", "there is no 'block': did you mean 'blocks'"),
        ("radnom(unit=2)", "masks has no 'radnom': did you mean 'random'"),
        (
            "random(unit=2)|grid",
            "should name exactly one of masks: attention, block, grid, hard, noise, random, time,",
        ),
    ],
)
def test_impossible_units_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        masks.sample(KEY, masks.make_strategy(text), MaskContext(grid=(6, 6), batch=1), 0.5)
