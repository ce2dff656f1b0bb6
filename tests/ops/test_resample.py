"""Parameters for images of another size or number of channels."""

import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops.patches import patchify
from mae_jax.ops.resample import resample_channels, resample_positions
from mae_jax.types import UserError


def test_positions_are_interpolated_and_the_class_token_stays():
    y, x = np.mgrid[:6, :6] / 6
    table = np.concatenate([np.full((1, 2), 9.0), np.stack([y, x], -1).reshape(36, 2)])
    found = np.asarray(resample_positions(jnp.asarray(table), (6, 6), (12, 9)))
    assert found.shape == (1 + 12 * 9, 2) and (found[0] == 9).all()
    inner = found[1:].reshape(12, 9, 2)[3:-3, 3:-3]
    rows, columns = (np.arange(12) + 0.5) / 2 - 0.5, (np.arange(9) + 0.5) * 6 / 9 - 0.5
    np.testing.assert_allclose(inner[:, 0, 0], rows[3:-3] / 6, atol=1e-3)
    np.testing.assert_allclose(inner[0, :, 1], columns[3:-3] / 6, atol=1e-3)
    np.testing.assert_array_equal(resample_positions(table, (6, 6), (6, 6)), table)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (3, 5), (1, 3), (4, 2), (3, 3)])
def test_equal_channels_give_what_they_gave(old, new):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4 * 4 * old, 7))
    grey = rng.normal(size=(2, 8, 8, 1))
    tokens = lambda channels: patchify(jnp.repeat(jnp.asarray(grey), channels, axis=3), 4)
    found = resample_channels(jnp.asarray(kernel), old, new)
    np.testing.assert_allclose(tokens(new) @ found, tokens(old) @ kernel, atol=1e-5)


def test_channels_that_do_not_divide_the_kernel():
    with pytest.raises(UserError, match="of 32 inputs has no 3 channels"):
        resample_channels(jnp.zeros((32, 4)), 3, 1)
