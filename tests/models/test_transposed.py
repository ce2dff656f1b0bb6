"""The head of transposed convolutions against loops, and how patches are reached by stages."""

import jax
import numpy as np
import pytest
from scipy.special import erf

from mae_jax.models.transposed import LEAST, TransposedHead, stages


@pytest.mark.parametrize(
    ("patch", "factors"),
    [
        ((4, 8, 8), [(2, 2, 2), (2, 2, 2), (1, 2, 2)]),
        ((1, 4, 4), [(1, 2, 2), (1, 2, 2)]),
        ((16,), [(2,)] * 4),
        ((6, 14), [(3, 7), (2, 2)]),
        ((1, 1), [(1, 1)]),
    ],
)
def test_stages_multiply_to_the_patch(patch, factors):
    assert stages(patch) == factors
    assert tuple(np.prod(stages(patch), axis=0)) == patch


def transposed(x, kernel, bias, sides):
    """[*grid, C] to [*space, W]: the kernel of each site is added at its place."""
    kernel = kernel.reshape(x.shape[-1], *sides, -1)
    found = np.zeros((*np.multiply(x.shape[:-1], sides), kernel.shape[-1])) + bias.reshape(
        *sides, -1
    ).mean(tuple(range(len(sides))))
    for site in np.ndindex(x.shape[:-1]):
        for inside in np.ndindex(*sides):
            at = tuple(s * side + i for s, side, i in zip(site, sides, inside))
            found[at] += x[site] @ kernel[(slice(None), *inside)]
    return found


def test_it_is_a_loop_over_sites_and_offsets():
    """Of anisotropic patches, with a LayerNorm and a GELU between the stages."""
    head = TransposedHead(classes=3, patch=(2, 4, 4), dtype=np.float32)
    x = np.random.default_rng(0).normal(size=(2, 2, 1, 2, 40)).astype(np.float32)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) * 20 if leaf.ndim == 2 else np.asarray(leaf),
        jax.jit(head.init)(jax.random.key(0), x)["params"],
    )
    params["up_1"]["bias"] = np.tile(np.float32([1, 2, 3]), 4)
    found = jax.jit(head.apply)({"params": params}, x)
    assert found.shape == (2, 4, 4, 8, 3) and found.dtype == np.float32
    assert params["up_0"]["kernel"].shape == (40, 8 * max(LEAST, 20))
    for row, image in zip(found, x.astype(np.float64)):
        y = transposed(image, *(params["up_0"][n] for n in ("kernel", "bias")), (2, 2, 2))
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
        y = y * (1 + erf(y / np.sqrt(2))) / 2
        y = transposed(y, *(params["up_1"][n] for n in ("kernel", "bias")), (1, 2, 2))
        np.testing.assert_allclose(row, y, atol=2e-4)
