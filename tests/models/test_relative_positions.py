"""Relative position bias: equal to a loop in float64, nothing at the start, one table a block."""

import jax
import numpy as np
import pytest

from mae_jax.models import vit
from mae_jax.models.relative_positions import RelativePositions
from mae_jax.models.transformer import Attention
from mae_jax.ops.masking import from_scores
from mae_jax.types import UserError

SIZE = dict(width=8, depth=2, heads=2, patch=4)
IMAGES = np.random.default_rng(0).normal(size=(2, 12, 12, 3)).astype(np.float32)


def bias_of(table, grid, prefix, query, key):
    """That of a pair of tokens, from BEiT's description."""
    rows, columns = grid
    offsets = (2 * rows - 1) * (2 * columns - 1)
    if query < prefix or key < prefix:
        kind = 2 if query < prefix and key < prefix else 0 if query < prefix else 1
        return table[offsets + kind]
    (a, b), (c, d) = divmod(query - prefix, columns), divmod(key - prefix, columns)
    return table[(a - c + rows - 1) * (2 * columns - 1) + (b - d + columns - 1)]


@pytest.mark.parametrize(("grid", "prefix"), [((3, 3), 1), ((2, 3), 1), ((2, 2), 0), ((2, 2), 2)])
def test_attention_with_the_bias_is_that_of_a_loop(grid, prefix):
    rng, heads, size = np.random.default_rng(0), 2, 4
    tokens = prefix + grid[0] * grid[1]
    x = rng.normal(size=(1, tokens, heads * size)).astype(np.float32)
    layer = Attention(heads, relative=grid)
    params = jax.device_get(jax.jit(layer.init)(jax.random.key(0), x)["params"])
    shape = ((2 * grid[0] - 1) * (2 * grid[1] - 1) + (3 if prefix else 0), heads)
    assert params["relative_positions"]["table"].shape == shape
    assert not params["relative_positions"]["table"].any()
    table = rng.normal(size=shape)
    params["relative_positions"]["table"] = table.astype(np.float32)
    weights = np.zeros((heads, tokens, tokens))
    product = x[0].astype(np.float64) @ np.asarray(params["qkv"]["kernel"], np.float64)
    queries, keys, values = np.split(product + np.asarray(params["qkv"]["bias"]), 3, axis=-1)
    mixed = np.zeros((tokens, heads * size))
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(tokens):
            logits = [
                queries[i, part] @ keys[j, part] / np.sqrt(size)
                + bias_of(table, grid, prefix, i, j)[head]
                for j in range(tokens)
            ]
            weights[head, i] = np.exp(logits) / np.exp(logits).sum()
            mixed[i, part] = weights[head, i] @ values[:, part]
    expected = mixed @ np.asarray(params["proj"]["kernel"], np.float64) + params["proj"]["bias"]
    apply = jax.jit(layer.apply, static_argnums=(2, 3))
    found, shown = apply({"params": params}, x, 0, True)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    np.testing.assert_allclose(shown[0], weights, atol=1e-6)
    skipped, _ = apply({"params": params}, x, 1, False)
    np.testing.assert_allclose(skipped, np.asarray(found)[:, 1:], atol=1e-6)


def test_every_entry_of_the_table_is_used_as_often_as_it_occurs():
    layer, table = RelativePositions((3, 4)), np.zeros((5 * 7 + 3, 2), np.float32)
    total = lambda table: layer.apply({"params": {"table": table}}, 13, 2).sum()
    found = np.asarray(jax.jit(jax.grad(total))(table))[:, 0]
    rows, columns = 3 - np.abs(np.arange(-2, 3)), 4 - np.abs(np.arange(-3, 4))
    np.testing.assert_allclose(found, [*np.outer(rows, columns).ravel(), 12, 12, 1])


def test_at_zero_nothing_changes_and_each_block_learns_its_own():
    plain, biased = vit.make(**SIZE), vit.make(**SIZE, relative_positions=True)
    params = jax.jit(biased.init)(jax.random.key(0), IMAGES)["params"]
    expected, found = jax.jit(lambda *args: (plain.apply(*args), biased.apply(*args)))(
        {"params": params}, IMAGES
    )
    np.testing.assert_array_equal(found, expected)
    loss = lambda params: biased.apply({"params": params}, IMAGES).var(axis=1).sum()
    gradient = jax.jit(jax.grad(loss))(params)
    for i in range(2):
        assert np.any(gradient[f"block_{i}"]["attention"]["relative_positions"]["table"])
    assert plain.architecture == biased.architecture


def test_masked_images_and_signals_are_refused():
    biased = vit.make(**SIZE, relative_positions=True)
    for images, mask in (
        (IMAGES, from_scores(np.zeros((2, 9)), 4)),
        (IMAGES[:, :, 0], None),
    ):
        with pytest.raises(UserError, match="relative_positions=True is for whole images"):
            biased.init(jax.random.key(0), images, mask)
