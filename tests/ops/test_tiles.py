"""Tiles: where they come from, what is taken out of them, and the orders they are shuffled in."""

import functools
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mae_jax.ops import tiles
from mae_jax.types import UserError

KEY = jax.random.key(0)
HEIGHT, WIDTH, TILE = 20, 26, 4  # cells of 6 x 8 pixels after a border of 1


def coordinates(batch):
    """[batch, H, W, 3] int32: every pixel holds its example, row and column."""
    return np.stack(np.mgrid[:batch, :HEIGHT, :WIDTH], axis=-1).astype(np.int32)


@functools.cache
def places(batch=400):
    """Where in its cell each tile of many images begins, [batch, 9, 2]; checks that tiles are exact
    copies of what the images hold there.
    """
    found = np.asarray(jax.jit(functools.partial(tiles.cut, tile=TILE))(KEY, coordinates(batch)))
    assert found.shape == (batch, 9, TILE, TILE, 3) and found.dtype == np.int32
    first = found[:, :, 0, 0]
    y, x = np.mgrid[:TILE, :TILE]
    assert (found[..., 0] == np.arange(batch)[:, None, None, None]).all()
    assert (found[..., 1] == first[:, :, 1, None, None] + y).all()
    assert (found[..., 2] == first[:, :, 2, None, None] + x).all()
    corners = [(1 + 6 * row, 1 + 8 * column) for row in range(3) for column in range(3)]
    return first[:, :, 1:] - np.array(corners)


def test_tiles_are_copies_from_inside_their_cells_in_row_major_order():
    assert places().min() >= 0
    assert places()[..., 0].max() <= 6 - TILE and places()[..., 1].max() <= 8 - TILE


def test_every_place_is_as_likely_as_any_other_and_all_tiles_draw_for_themselves():
    number = places()[..., 0] * 5 + places()[..., 1]  # [400, 9], of the 3 x 5 places
    for cell in range(9):
        counts = np.bincount(number[:, cell], minlength=15)
        assert len(counts) == 15 and scipy.stats.chisquare(counts).pvalue > 1e-3
    agree = [np.mean(number[:, i] == number[:, j]) for i, j in combinations(range(9), 2)]
    agree.append(np.mean(number[0::2] == number[1::2]))
    assert max(agree) < 0.14 and abs(np.mean(agree) - 1 / 15) < 0.01
    axes = [np.corrcoef(*places()[:, cell].T)[0, 1] for cell in range(9)]
    assert np.abs(axes).max() < 0.2


def test_cutting_is_a_function_of_the_key_that_devices_do_alone():
    rows = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("data",)), P("data"))
    images = coordinates(4)
    cut = jax.jit(functools.partial(tiles.cut, tile=TILE))
    alone, shared = cut(KEY, images), cut(KEY, jax.device_put(images, rows))
    assert len(shared.sharding.device_set) == 2
    np.testing.assert_array_equal(alone, shared)
    assert not np.array_equal(alone, cut(jax.random.key(1), images))
    program = cut.lower(KEY, jax.device_put(images, rows)).compile().as_text()
    assert "all-" not in program and "collective" not in program


@pytest.mark.parametrize("tile", [0, 7, 20])
def test_tiles_that_do_not_fit_are_refused(tile):
    with pytest.raises(UserError, match=f"tile={tile} does not fit.*20 x 26.*largest tile is 6"):
        tiles.cut(KEY, np.zeros((1, HEIGHT, WIDTH, 1), np.uint8), tile)


def test_a_tile_as_large_as_its_cell_is_the_cell():
    images = np.arange(2 * 12 * 12, dtype=np.int32).reshape(2, 12, 12, 1)
    found = jax.jit(functools.partial(tiles.cut, tile=4))(KEY, images)
    np.testing.assert_array_equal(found[:, 5], images[:, 4:8, 8:12])


def test_dropping_colors_leaves_one_channel_and_faint_noise():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 3, (300, 2, 1, 1, 3))
    before = (rng.normal(0.5, 1, (300, 2, 8, 8, 3)) * scale).astype(np.float32)
    after = np.asarray(jax.jit(tiles.drop_colors)(KEY, before))
    same = (after == before).all(axis=(2, 3))  # [300, 2, 3]
    np.testing.assert_array_equal(same.sum(axis=-1), 1)
    stays = same.argmax(axis=-1)
    assert scipy.stats.chisquare(np.bincount(stays.ravel())).pvalue > 1e-3
    assert 0.2 < np.mean(stays[:, 0] == stays[:, 1]) < 0.47, "tiles of a pair draw for themselves"
    deviation = before.std(axis=(2, 3))[same].reshape(300, 2, 1)
    noise = np.moveaxis(after, -1, 2)[~same].reshape(300, 2, 2, 64) / deviation[..., None]
    assert abs(noise.std() - 0.01) < 1e-4 and abs(noise.mean()) < 2e-4
    assert scipy.stats.kstest(noise.ravel() / 0.01, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise[:, :, 0].ravel(), noise[:, :, 1].ravel())[0, 1]) < 0.02


def test_projection_removes_the_axis_from_magenta_to_green():
    colors = np.random.default_rng(0).uniform(-2, 2, (3, 2, 4, 4, 3))
    axis = np.array([[-1.0, 2.0, -1.0]])
    projection = np.eye(3) - axis.T @ axis / (axis @ axis.T)
    after = jax.jit(tiles.project_colors)(jnp.asarray(colors, jnp.float32))
    np.testing.assert_allclose(after, colors @ projection, atol=1e-6)


def test_normalized_tiles_have_no_brightness_and_no_contrast():
    before = np.random.default_rng(0).uniform(size=(3, 9, 5, 5, 2)) * [0.02, 0.9] + [0.3, 0.1]
    after = jax.jit(tiles.normalize_tiles)(jnp.asarray(before, jnp.float32))
    flat = before.reshape(3, 9, 25, 2)
    centerd = flat - flat.mean(axis=2, keepdims=True)
    expected = centerd / np.sqrt((centerd**2).mean(axis=2, keepdims=True) + 1e-6)
    np.testing.assert_allclose(after, expected.reshape(before.shape), atol=1e-4)
    even = jax.jit(tiles.normalize_tiles)(jnp.full((1, 9, 5, 5, 1), 0.7))
    np.testing.assert_allclose(even, 0, atol=1e-3)


@pytest.mark.parametrize(
    "function", [functools.partial(tiles.drop_colors, KEY), tiles.project_colors]
)
def test_taking_color_out_needs_three_channels(function):
    with pytest.raises(UserError, match="3 channels .* have 1: .*colors=keep"):
        function(jnp.zeros((2, 4, 4, 1)))


def distances(orders, others):
    """Hamming distances [len(orders), len(others)]."""
    return np.stack([(orders != other).sum(axis=1) for other in others], axis=1)


def test_permutations_are_the_greedy_choice():
    found = tiles.permutations(13, seed=3)
    everything = np.array(list(permutations(range(9))), np.uint8)
    chosen = [found[0]]
    while len(chosen) < len(found):
        distance = distances(everything, chosen)
        best = everything[distance.min(axis=1) == distance.min(axis=1).max()]
        total = distances(best, chosen).sum(axis=1)
        chosen.append(best[total == total.max()][0])
    np.testing.assert_array_equal(found, chosen)


def test_a_hundred_permutations_lie_far_apart():
    found = tiles.permutations(100, seed=0)
    assert found.shape == (100, 9) and found.dtype == np.uint8
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(9), (100, 1)))
    apart = distances(found, found)[~np.eye(100, dtype=bool)]
    assert apart.min() == 6 and apart.mean() > 8


def test_permutations_depend_on_the_seed_alone_and_begin_anywhere():
    first, again = tiles.permutations(20, seed=0), tiles.permutations(20, seed=0)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[:5], tiles.permutations(5, seed=0))
    starts = [tuple(tiles.permutations(2, seed=seed)[0].tolist()) for seed in range(6)]
    assert len(set(starts)) == 6
    assert len({start[0] for start in starts}) > 1


@pytest.mark.parametrize("count", [-1, 1, 362_881])
def test_an_impossible_number_of_permutations_is_refused(count):
    with pytest.raises(UserError, match=f"{count} permutations of nine tiles: choose 2 to 362880"):
        tiles.permutations(count, seed=0)
