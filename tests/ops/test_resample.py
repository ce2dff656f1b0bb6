"""Parameters for images of another size or number of channels."""

import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops.patches import patchify
from mae_jax.ops.resample import resample_channels, resample_patches, resample_positions
from mae_jax.types import UserError


def test_antialiased_positions_keep_what_is_linear():
    y, x = np.mgrid[:6, :6] / 6
    table = np.concatenate([np.full((1, 2), 9.0), np.stack([y, x], -1).reshape(36, 2)])
    found = resample_positions(jnp.asarray(table), (6, 6), (12, 9), kernel="antialias")
    found = np.asarray(found)
    assert found.shape == (1 + 12 * 9, 2) and (found[0] == 9).all()
    inner = found[1:].reshape(12, 9, 2)[3:-3, 3:-3]
    rows, columns = (np.arange(12) + 0.5) / 2 - 0.5, (np.arange(9) + 0.5) * 6 / 9 - 0.5
    np.testing.assert_allclose(inner[:, 0, 0], rows[3:-3] / 6, atol=1e-3)
    np.testing.assert_allclose(inner[0, :, 1], columns[3:-3] / 6, atol=1e-3)


def cubic(x: float) -> float:
    """Keys' kernel with a = -3/4: 1 at 0, and 0 at the other whole numbers."""
    x = abs(x)
    if x < 1:
        return (5 * x**3 - 9 * x**2 + 4) / 4
    return -3 / 4 * (x - 1) * (x - 2) ** 2 if x < 2 else 0.0


@pytest.mark.parametrize("new", [(9, 3), (4, 7), (3, 4)])
def test_bicubic_positions_are_the_sum_over_sixteen_neighbors(new):
    old, rng = (4, 5), np.random.default_rng(0)
    table = rng.normal(size=(1 + 20, 3))
    field = table[1:].reshape(*old, 3)
    expected = np.zeros((*new, 3))
    for r, c in np.ndindex(new):
        y, x = (r + 0.5) * old[0] / new[0] - 0.5, (c + 0.5) * old[1] / new[1] - 0.5
        for i in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
            for j in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                value = field[min(max(i, 0), old[0] - 1), min(max(j, 0), old[1] - 1)]
                expected[r, c] += cubic(y - i) * cubic(x - j) * value
    found = np.asarray(resample_positions(jnp.asarray(table), old, new))
    np.testing.assert_allclose(found[1:].reshape(*new, 3), expected, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(found[0], np.float32(table[0]))
    torch = pytest.importorskip("torch")
    field = torch.tensor(field).permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(field, size=new, mode="bicubic", align_corners=False)
    theirs = theirs[0].permute(1, 2, 0).reshape(-1, 3)
    np.testing.assert_allclose(found[1:], theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("old", "new"), [((3, 4), (5, 4)), ((14,), (16,)), ((6, 5), (4, 3))])
def test_patches_that_are_resized_keep_their_embedding(old, new):
    """Exactly if they grow; otherwise no other kernel is closer to it for random pixels."""
    rng, channels = np.random.default_rng(0), 2
    kernel = rng.normal(size=(np.prod(old) * channels, 3)).astype(np.float32)
    found = resample_patches(kernel, old, new)
    assert found.shape == (np.prod(new) * channels, 3) and found.dtype == np.float32
    matrix = np.ones((1, 1))  # of the resizing of a patch, [prod(new), prod(old)]
    for before, after in zip(old, new, strict=True):
        axis = np.zeros((after, before))
        for i in range(after):
            at = (i + 0.5) * before / after - 0.5
            for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
                axis[i, min(max(j, 0), before - 1)] += cubic(at - j)
        matrix = np.kron(matrix, axis)
    matrix = np.kron(matrix, np.eye(channels))
    error = matrix.T @ found - kernel  # of the embeddings of single pixels
    if np.prod(new) > np.prod(old):
        np.testing.assert_allclose(error, 0, atol=1e-5)
    assert np.abs(matrix @ error).max() < 1e-5  # the gradient of its square


def test_positions_of_the_same_grid_stay():
    table = jnp.arange(14.0).reshape(7, 2)
    np.testing.assert_array_equal(resample_positions(table, (2, 3), (2, 3)), table)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 5), (1, 3), (4, 2), (3, 3)])
def test_equal_channels_give_what_they_gave(old, new):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4 * 4 * old, 7))
    gray = rng.normal(size=(2, 8, 8, 1))
    tokens = lambda channels: patchify(jnp.repeat(jnp.asarray(gray), channels, axis=3), 4)
    found = resample_channels(jnp.asarray(kernel), old, new)
    np.testing.assert_allclose(tokens(new) @ found, tokens(old) @ kernel, atol=1e-5)


def test_channels_that_do_not_divide_the_kernel():
    with pytest.raises(UserError, match="of 32 inputs has no 3 channels"):
        resample_channels(jnp.zeros((32, 4)), 3, 1)


@pytest.mark.parametrize("kernel", ["bicubic", "antialias"])
def test_positions_in_any_number_of_dimensions_behind_any_number_of_class_tokens(kernel):
    """A table that is constant along the first axis is that of the others, repeated."""
    plane = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    expected = np.asarray(resample_positions(plane, (3, 4), (5, 2), prefix=0, kernel=kernel))
    first = np.full((3, 2), 9, np.float32)
    table = jnp.asarray(np.concatenate([first, np.tile(plane, (2, 1))]))
    found = resample_positions(table, (2, 3, 4), (3, 5, 2), prefix=3, kernel=kernel)
    np.testing.assert_array_equal(found[:3], first)
    np.testing.assert_allclose(found[3:], np.tile(expected, (3, 1)), atol=1e-6)
    line = resample_positions(plane[:4], (4,), (7,), prefix=0, kernel=kernel)
    again = resample_positions(plane[:4], (1, 4), (1, 7), prefix=0, kernel=kernel)
    np.testing.assert_allclose(line, again, atol=1e-6)
    with pytest.raises(UserError, match=r"of a grid \(3, 4\) cannot become those of .* \(12,\)"):
        resample_positions(plane, (3, 4), (12,), prefix=0, kernel=kernel)
