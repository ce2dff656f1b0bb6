"""The image-making networks against float64 numpy, written from what their layers are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from mae_jax.models.unet_decoder import Generator, UNetDecoder
from mae_jax.types import UserError
from tests.helpers.compiled import compiled


def noisy(params, seed=1):
    """Parameters with noise on every one, so that biases and scales count."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: np.float32(x + 0.3 * rng.normal(size=x.shape)), params)


def doubled(x, kernel, bias):
    """Every site [D] of x [B, h, w, D] paints a 6 x 6 square around its 2 x 2 in the output, which
    overlaps with those of its neighbors. Kernel and bias are those of the sites' convolution.
    """
    batch, rows, columns, depth = x.shape
    width = len(bias) // 4
    parts = kernel.reshape(3, 3, depth, 2, 2, width)  # of neighbors, for each of the four pixels
    square = np.zeros((6, 6, depth, width))
    for up, left, row, column in np.ndindex(3, 3, 2, 2):
        place = 4 + row - 2 * up, 4 + column - 2 * left
        square[place] = parts[up, left, :, row, column]
    out = np.zeros((batch, 2 * rows + 4, 2 * columns + 4, width))
    for i, j in np.ndindex(rows, columns):
        painted = np.einsum("bd,hwdk->bhwk", x[:, i, j], square)
        out[:, 2 * i : 2 * i + 6, 2 * j : 2 * j + 6] += painted
    out = out[:, 2:-2, 2:-2]
    return out + np.tile(bias.reshape(2, 2, width), (rows, columns, 1))


def convolved(x, kernel, bias):
    """A 3 x 3 convolution with zeros around the map."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[-1])) + bias
    for i in range(3):
        for j in range(3):
            out += padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
    return out


def test_a_deconv_against_numpy():
    rng = np.random.default_rng(0)
    maps = [(2, 3, 4, 5), (2, 3, 4, 7), (2, 6, 8, 2), (2, 12, 16, 1)]
    x, *skips = (rng.normal(size=shape).astype(np.float32) for shape in maps)
    model = UNetDecoder(width=6, factor=4, channels=3)
    params = noisy(compiled(model, "init")(jax.random.key(0), x, skips)["params"])
    wide = jax.tree.map(np.float64, params)
    y = x.astype(np.float64)
    for i, skip in enumerate(skips):
        if i > 0:
            y = doubled(y, **wide[f"up_{i}"]["conv"])
            y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
            y = y * wide[f"norm_{i}"]["scale"] + wide[f"norm_{i}"]["bias"]
            y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
        y = y + skip @ wide[f"skip_{i}"]["kernel"] + wide[f"skip_{i}"]["bias"]
    expected = convolved(y, **wide["predict"])
    found = compiled(model, "apply")({"params": params}, x, skips)
    assert found.shape == (2, 12, 16, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("width", "factor", "widths"),
    [(64, 16, [64, 32, 16, 16]), (24, 4, [24, 16]), (8, 4, [8, 8]), (512, 2, [512]), (64, 1, [])],
)
def test_widths_halve_down_to_16(width, factor, widths):
    model = UNetDecoder(width, factor, channels=2)
    x = jax.ShapeDtypeStruct((1, 3, 2, 5), jnp.float32)
    out, variables = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)
    params = variables["params"]
    found = [params[f"up_{i + 1}"]["conv"]["kernel"].shape[-1] // 4 for i in range(len(widths))]
    assert found == widths and f"up_{len(widths) + 1}" not in params
    assert out.shape == (1, 3 * factor, 2 * factor, 2)


def test_one_skip_may_be_missing_but_none_may_be_without_a_place():
    shapes = lambda *sides: [np.zeros((1, 2 * s, 3 * s, 4), np.float32) for s in sides]
    model = UNetDecoder(8, 4, 1)
    apply = lambda skips: jax.eval_shape(
        lambda: model.init(jax.random.key(0), np.zeros((1, 2, 3, 5), np.float32), skips)
    )["params"]
    for sides in [(), (1,), (2,), (1, 4), (1, 2, 4)]:
        found = {name for name in apply(shapes(*sides)) if "skip" in name}
        assert found == {f"skip_{int(np.log2(s))}" for s in sides}
    for sides in [(3,), (2, 1), (2, 2), (8,), (1, 2, 4, 8)]:
        with pytest.raises(UserError, match="matches no size"):
            apply(shapes(*sides))
    with pytest.raises(UserError, match="matches no size"):
        apply([np.zeros((1, 4, 4, 4), np.float32)])


@pytest.mark.parametrize("factor", [0, -2, 3, 6, 12])
def test_a_factor_that_is_no_power_of_two_is_an_error(factor):
    with pytest.raises(UserError, match=f"factor={factor} must be a power of two"):
        UNetDecoder(8, factor, 1).init(jax.random.key(0), np.zeros((1, 2, 2, 4), np.float32))


@pytest.mark.parametrize(
    ("size", "first"),
    [
        ((16, 12), (4, 3)),
        ((16, 16), (4, 4)),
        ((32, 32), (4, 4)),
        ((224, 224), (7, 7)),
        ((28, 28), (7, 7)),
        ((96, 48), (6, 3)),
        ((15, 20), (15, 20)),
        ((2, 2), (2, 2)),
    ],
)
def test_generators_of_all_sizes(size, first):
    model = Generator(width=8, size=size, channels=5)
    z = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    out, variables = jax.eval_shape(lambda z: model.init_with_output(jax.random.key(0), z), z)
    assert out.shape == (2, *size, 5)
    assert variables["params"]["embed"]["kernel"].shape == (3, first[0] * first[1] * 8)


def test_sides_that_hardly_halve_are_an_error():
    z = jnp.zeros((1, 3))
    with pytest.raises(UserError, match="65 x 65 cannot be generated"):
        Generator(width=8, size=(65, 65), channels=3).init(jax.random.key(0), z)


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    model = Generator(width=16, size=(16, 12), channels=3)
    z = jax.random.normal(jax.random.key(0), (3, 4)) * jnp.array([[0.1], [1.0], [30.0]])
    params = noisy(compiled(model, "init")(jax.random.key(1), z)["params"])
    make = compiled(model, "apply")
    together = make({"params": params}, z)
    alone = np.concatenate([make({"params": params}, row[None]) for row in z])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(together[0] - together[1]).max()) > 0.1


def test_bfloat16_is_what_it_computes_in_only():
    z = jax.random.normal(jax.random.key(0), (2, 4))
    single, half = (Generator(16, (16, 12), 3, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    variables = compiled(half, "init")(jax.random.key(1), z)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    images, rough = (compiled(model, "apply")(variables, z) for model in (single, half))
    assert rough.dtype == jnp.float32
    assert 1e-4 < float(jnp.abs(images - rough).max()) < 0.3
