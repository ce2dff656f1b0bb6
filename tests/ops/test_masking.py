"""Masks: exact ratios, forms that agree, no favored place, each strategy's shapes."""

import functools
import math
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mae_jax import masks
from mae_jax.masks import MaskContext
from mae_jax.ops import masking
from mae_jax.spec import build
from mae_jax.types import UserError

STRATEGIES = ["random", "block", "grid"]
RATIOS = {
    (14, 14): [0, 0.05, 0.08, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9],
    (7, 5): [0.6, 0.75],
    (4, 6): [0.3, 0.5, 0.6, 0.75, 0.9],
    (25,): [0.6],
    (4, 4, 4): [0.75, 0.9],
    (2, 3, 2, 3): [0.5],
}
BATCH = 64
KEY = jax.random.key(0)


def exact_visible(length, ratio):
    """floor(length * (1 - ratio)) for the ratio as it is written."""
    return math.floor(length * (1 - Fraction(str(ratio))))


@functools.cache
def sampler(batch, grid, strategy):
    """Masks of a key, by their ratio, under jit: they share the scores and what is compiled."""
    draw = functools.partial(sample, batch=batch, grid=grid, strategy=strategy)
    return jax.jit(lambda key: {ratio: draw(key, ratio=ratio) for ratio in RATIOS[grid]})


def sample(key, batch, grid, strategy="random", ratio=0.75):
    """One mask per example, by the strategy's spec string."""
    context = MaskContext(grid=grid, batch=batch)
    return masks.sample(key, build(strategy, "masks"), context, ratio)


def masks_of(strategy, grid, ratio, *, batch=BATCH, seed=0):
    """[batch, rows, columns] bool."""
    found = sampler(batch, grid, strategy)(jax.random.key(seed))
    return np.asarray(found[ratio].mask).reshape(batch, *grid)


@pytest.mark.parametrize(
    "grid", [pytest.param(g, marks=[pytest.mark.thorough] * (len(g) in (1, 3))) for g in RATIOS]
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_ratio_is_exact_and_the_forms_agree(strategy, grid):
    length, found = math.prod(grid), jax.device_get(sampler(BATCH, grid, strategy)(KEY))
    for ratio in RATIOS[grid]:
        visible = exact_visible(length, ratio)
        keep, masked, restore, mask = found[ratio]
        np.testing.assert_array_equal(masked, np.argsort(restore, axis=1)[:, keep.shape[1] :])
        assert (keep.shape, keep.dtype) == ((BATCH, visible), jnp.int32)
        assert (restore.shape, restore.dtype) == ((BATCH, length), jnp.int32)
        assert (mask.shape, mask.dtype) == ((BATCH, length), jnp.bool_)
        every = np.broadcast_to(np.arange(length), (BATCH, length))
        np.testing.assert_array_equal(np.sort(restore, axis=1), every)
        assert (mask.sum(axis=1) == length - visible).all()
        seen = np.nonzero(~mask)[1].reshape(BATCH, visible)
        np.testing.assert_array_equal(np.sort(keep, axis=1), seen, "visible patches")
        order = np.take_along_axis(restore, keep, axis=1)
        np.testing.assert_array_equal(order, every[:, :visible], "their order")


def test_restore_undoes_the_shuffle():
    """As the decoder uses it: [visible, hidden] tokens taken at `restore` are in order again."""
    keep, _, restore, mask = jax.device_get(sampler(BATCH, (14, 14), "random")(KEY)[0.75])
    tokens = np.arange(BATCH * 196).reshape(BATCH, 196)
    order = [np.concatenate([k, np.setdiff1d(np.arange(196), k)]) for k in keep]
    shuffled = np.take_along_axis(tokens, np.stack(order), axis=1)
    restored = np.take_along_axis(shuffled, restore, axis=1)
    np.testing.assert_array_equal(restored[~mask], tokens[~mask])


def test_the_order_of_patches_costs_one_sort_and_their_places_another():
    def sorts(names):
        ask = lambda key: [getattr(sample(key, 2, (4, 6)), name) for name in names]
        text = jax.jit(ask).lower(jax.random.key(0)).compile().as_text()
        return len(re.findall(r" sort\(", text))

    assert sorts(["keep", "masked"]) == 1
    assert sorts(masking.Mask._fields) == 2


def test_number_of_visible_patches_is_exact():
    """100 * (1 - 0.9) is 9.999... in floating point."""
    assert masking.num_visible(100, 0.9) == 10
    for length in (16, 35, 49, 64, 100, 144, 196, 256, 1024):
        for percent in range(100):
            ratio = percent / 100
            expected = exact_visible(length, ratio)
            if expected:
                assert masking.num_visible(length, ratio) == expected, (length, ratio)


@pytest.mark.parametrize("ratio", [1e-30, 1e-9, 0.01])
def test_any_ratio_but_zero_hides_something(ratio):
    assert masking.num_visible(6, ratio) == 5 and masking.num_visible(6, 0) == 6


@pytest.mark.parametrize("strategy", ["random", "block"])
def test_masks_differ_between_examples_and_keys(strategy):
    masks = masks_of(strategy, (14, 14), 0.75)
    assert len({mask.tobytes() for mask in masks}) == BATCH
    assert (masks != masks_of(strategy, (14, 14), 0.75, seed=1)).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(masks, masks_of(strategy, (14, 14), 0.75))


def test_grid_masks_between_its_ratios_differ_between_examples():
    masks = masks_of("grid", (14, 14), 0.6)
    assert len({mask.tobytes() for mask in masks}) == BATCH


@pytest.fixture(scope="module")
def on_devices():
    """Masks by strategy, drawn on one device and on two."""
    devices = jax.devices()
    assert len(devices) >= 2
    draw = lambda key: {name: sample(key, 8, (4, 5), name, 0.6) for name in STRATEGIES}
    split = NamedSharding(Mesh(np.array(devices[:2]), ("data",)), P("data"))
    return jax.jit(draw)(KEY), jax.jit(draw, out_shardings=split)(KEY)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_do_not_depend_on_the_number_of_devices(strategy, on_devices):
    for alone, shared in zip(*(found[strategy] for found in on_devices), strict=True):
        assert len(shared.sharding.device_set) == 2
        np.testing.assert_array_equal(alone, shared)


def test_random_masks_favor_no_place():
    """Counts of hidden patches over places: chi-square with 195 degrees of freedom, and their trend
    from the first place to the last, in standard deviations. Noise in bfloat16 has ties, which go
    to the earlier patch: a trend of 7.
    """
    batch, length, share = 10_000, 196, 0.75
    draw = jax.jit(lambda key: sample(key, batch, (14, 14), ratio=share).mask)
    masks = np.asarray(draw(KEY))
    deviations = masks.sum(axis=0) - batch * share
    variance = batch * share * (1 - share) * length / (length - 1)
    assert abs((deviations**2).sum() / variance - 195) < 5 * np.sqrt(2 * 195)
    slope = np.linspace(-1, 1, length)
    assert abs(slope @ deviations) / np.sqrt(variance * (slope**2).sum()) < 4


def test_random_masks_hide_patches_independently():
    """Both of two places are hidden as often as chance has it, wherever they are."""
    batch, length = 20_000, 16
    draw = jax.jit(lambda key: sample(key, batch, (4, 4), ratio=0.5).mask)
    masks = np.asarray(draw(KEY)).astype(float)
    together = (masks.T @ masks / batch)[~np.eye(length, dtype=bool)]
    np.testing.assert_allclose(together, 0.5 * 7 / 15, atol=0.02)


def hidden_neighbors(masks):
    """Of the neighbors of hidden patches (up, down, left, right), the share that is hidden too."""
    pairs = [(masks[:, 1:], masks[:, :-1]), (masks[:, :, 1:], masks[:, :, :-1])]
    both = sum((a & b).sum() for a, b in pairs)
    either = sum(a.sum() + b.sum() for a, b in pairs)
    return 2 * both / either


@pytest.mark.parametrize("ratio", [0.4, 0.5, 0.75])
def test_block_masks_are_large_pieces(ratio):
    assert hidden_neighbors(masks_of("random", (14, 14), ratio)) == pytest.approx(ratio, abs=0.02)
    assert hidden_neighbors(masks_of("block", (14, 14), ratio)) > 1 - (1 - ratio) / 2


def test_a_small_block_mask_is_one_rectangle_that_is_cut_in_its_last_row():
    """5% are less than any rectangle has."""
    for mask in masks_of("block", (14, 14), 0.05):
        rows = [list(np.flatnonzero(row)) for row in mask if row.any()]
        filled = np.flatnonzero(mask.any(axis=1))
        assert list(filled) == list(range(filled[0], filled[-1] + 1))
        assert rows[0] == list(range(rows[0][0], rows[0][-1] + 1))
        assert all(row == rows[0] for row in rows[:-1])
        assert rows[-1] == rows[0][: len(rows[-1])]


def test_block_masks_have_rectangles_of_many_shapes_and_places():
    """Areas from 8% with aspect ratios from 0.3 to 1 / 0.3: from 2 to 14 columns of 14."""
    masks = np.concatenate([masks_of("block", (14, 14), 0.08, seed=seed) for seed in range(8)])
    assert set(masks.any(axis=1).sum(axis=1)) >= set(range(3, 12))
    hidden = masks.mean(axis=0)
    assert hidden[:-1].min() > 0 and hidden.max() < 0.25, "no place is favored much"


@pytest.mark.parametrize("grid", [(4, 6), (14, 14)])
def test_grid_masks(grid):
    y, x = np.mgrid[: grid[0], : grid[1]]
    quarter = (y % 2 == 0) & (x % 2 == 0)
    checkerboard = (y + x) % 2 == 0
    for mask in masks_of("grid", grid, 0.75):
        np.testing.assert_array_equal(~mask, quarter)
    for mask in masks_of("grid", grid, 0.5):
        np.testing.assert_array_equal(~mask, checkerboard)
    for mask in masks_of("grid", grid, 0.6):
        assert (quarter <= ~mask).all() and (~mask <= checkerboard).all()
    for mask in masks_of("grid", grid, 0.9):
        assert (~mask <= quarter).all()


from_scores = jax.jit(masking.from_scores, static_argnums=1)


def test_ties_go_to_the_earlier_patch():
    scores = np.float32([[1.0, 0.0, 1.0, 0.0, 0.0, 1.0], [0.0] * 6])
    keep, hidden, restore, mask = from_scores(scores, 4)
    np.testing.assert_array_equal(keep, [[1, 3, 4, 0], [0, 1, 2, 3]])
    np.testing.assert_array_equal(hidden, [[2, 5], [4, 5]])
    np.testing.assert_array_equal(restore, [[3, 0, 4, 1, 2, 5], [0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(mask, [[0, 0, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1]])


def test_the_lowest_scores_stay_visible():
    keep, hidden, _, mask = from_scores(np.float32([[0.3, 0.9, 0.1, 0.5]]), 2)
    np.testing.assert_array_equal(keep, [[2, 0]])
    np.testing.assert_array_equal(hidden, [[3, 1]])
    np.testing.assert_array_equal(mask, [[False, True, False, True]])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_scores_are_float32(strategy):
    context = MaskContext(grid=(4, 5), batch=3)
    scores = jax.eval_shape(
        lambda key: build(strategy, "masks").score(key, context), jax.random.key(0)
    )
    assert (scores.shape, scores.dtype) == ((3, 20), jnp.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "blocks"}, "masks has no 'blocks': did you mean 'block'"),
        ({"strategy": "block(many=3)"}, r"block\(many=3\): there is no 'many': choose blocks"),
        ({"strategy": "block(blocks=0)"}, "mask block: blocks=0 must be at least 1"),
        ({"strategy": "block(blocks=2.5)"}, "blocks=2.5 should be of type int"),
        ({"strategy": "random(1)"}, r"random\(1\): too many positional arguments"),
        ({"ratio": -0.1}, r"mask_ratio -0.1 is outside \[0, 1\)"),
        ({"ratio": 1}, r"mask_ratio 1 is outside \[0, 1\)"),
        ({"ratio": 75}, r"mask_ratio 75 is outside \[0, 1\)"),
        ({"ratio": math.nan}, "mask_ratio nan is outside"),
        ({"ratio": 0.96}, "mask_ratio 0.96 leaves none of 16 patches visible"),
    ],
)
def test_impossible_masks_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        sample(jax.random.key(0), 2, (4, 4), **options)
