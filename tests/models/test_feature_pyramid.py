"""Feature pyramids: their sizes, and the values of a loop."""

import jax
import numpy as np
import pytest

from mae_jax.models.feature_pyramid import FeaturePyramid
from mae_jax.types import UserError

WIDTH = 6


def started(maps, seed=0):
    network = FeaturePyramid(WIDTH)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), maps)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    return variables, jax.jit(network.apply)(variables, maps)


def random_map(rows, columns, channels, seed=0):
    return np.random.default_rng(seed).normal(size=(2, rows, columns, channels)).astype(np.float32)


def norm(x, params):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def conv(x, params):
    """With zeros around, then the norm."""
    kernel = params["conv"]["kernel"].astype(np.float64)
    side = len(kernel) // 2
    padded = np.pad(x, ((0, 0), (side, side), (side, side), (0, 0)))
    rows, columns = x.shape[1:3]
    total = sum(
        padded[:, i : i + rows, j : j + columns] @ kernel[i, j]
        for i, j in np.ndindex(*kernel.shape[:2])
    )
    return norm(total, params["norm"])


def test_one_map_becomes_five_levels():
    """Sides that are odd, too; and the coarser levels are those of a loop."""
    x = random_map(3, 5, 8)
    variables, levels = started([x])
    assert [y.shape[1:] for y in levels] == [
        (12, 20, WIDTH),
        (6, 10, WIDTH),
        (3, 5, WIDTH),
        (1, 2, WIDTH),
        (1, 1, WIDTH),
    ]
    params = variables["params"]
    same = conv(conv(x.astype(np.float64), params["lateral_2"]), params["output_2"])
    np.testing.assert_allclose(levels[2], same, atol=1e-3)
    pooled = x[:, :2, :4].reshape(2, 1, 2, 2, 2, 8).max(axis=(2, 4)).astype(np.float64)
    half = conv(conv(pooled, params["lateral_3"]), params["output_3"])
    np.testing.assert_allclose(levels[3], half, atol=1e-3)
    np.testing.assert_array_equal(levels[4], levels[3][:, ::2, ::2])
    weight = params["up_1"]["fc"]["kernel"].astype(np.float64).reshape(8, 2, 2, 4)
    double = np.einsum("bijc,cyxd->biyjxd", x, weight).reshape(2, 6, 10, 4)
    double = conv(conv(double + params["up_1"]["bias"], params["lateral_1"]), params["output_1"])
    np.testing.assert_allclose(levels[1], double, atol=1e-3)


def test_four_maps_have_a_top_down_path():
    maps = [
        random_map(*size, 4 << i, seed=i)
        for i, size in enumerate([(8, 12), (4, 6), (2, 3), (1, 2)])
    ]
    variables, levels = started(maps)
    assert [y.shape[1:3] for y in levels] == [x.shape[1:3] for x in maps] + [(1, 1)]
    params, above = variables["params"], None
    for i in reversed(range(4)):
        x = conv(maps[i].astype(np.float64), params[f"lateral_{i}"])
        if above is not None:
            for row, column in np.ndindex(*x.shape[1:3]):
                x[:, row, column] += above[:, row // 2, column // 2]
        above = x
        np.testing.assert_allclose(levels[i], conv(x, params[f"output_{i}"]), atol=2e-3)


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        ([random_map(1, 4, 8)], "at least 2 x 2 patches, and these are 1 x 4"),
        ([random_map(4, 4, 8)] * 3, "needs 1 or 4 maps, and the encoder has 3 stages"),
    ],
)
def test_other_maps_are_refused(maps, words):
    with pytest.raises(UserError, match=words):
        jax.eval_shape(FeaturePyramid(WIDTH).init, jax.random.key(0), maps)
