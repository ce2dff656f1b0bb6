"""Memory-efficient attention in plain XLA, for any device: a scan over blocks of keys with running
softmax sums (arXiv 2112.05682, 2205.14135). Memory grows with T + S instead of T x S.

The forward pass saves its inputs, its output, and the maximum and sum of each row of the softmax.
From these, the backward pass recomputes the weights block by block.
"""

from functools import partial

import jax
import jax.numpy as jnp

from mae_jax.ops.attention.call import Call
from mae_jax.ops.attention.xla import MINIMUM, heads_first, masked_logits, product, sum_to

BLOCK = 256
"""Number of keys in a block."""


def refusal(call: Call) -> str:
    """Returns '': this kind supports every call."""
    del call
    return ""


def attend(query, key, value, bias=None, mask=None, *, block: int = BLOCK) -> jax.Array:
    """See `mae_jax.ops.attention.attention`.

    Args:
        block: number of keys in a block; the last block is padded with masked keys.
    """
    length = key.shape[1]
    block = min(block, length)
    extra = -length % block
    if extra:
        rows = [(0, 0), (0, extra), (0, 0), (0, 0)]
        key, value = jnp.pad(key, rows), jnp.pad(value, rows)
        if bias is not None and bias.shape[3] > 1:
            bias = jnp.pad(bias, [(0, 0)] * 3 + [(0, extra)])
        valid = (jnp.arange(length + extra) < length)[None, None, None]
        mask = (
            valid
            if mask is None
            else mask & valid
            if mask.shape[3] == 1
            else (jnp.pad(mask, [(0, 0)] * 3 + [(0, extra)]))
        )
    return _attend(query, key, value, bias, mask, block)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(query, key, value, bias, mask, block):
    return _forward(query, key, value, bias, mask, block)[0]


def _split(key, value, bias, mask, block: int) -> tuple:
    """Key, value, bias and mask in blocks of keys; None for a bias or mask that all keys share."""
    of_keys = lambda x: None if x is None or x.shape[3] == 1 else _blocks(x, 3, block)
    return _blocks(key, 2, block), _blocks(value, 2, block), of_keys(bias), of_keys(mask)


def _blocks(x: jax.Array, axis: int, block: int) -> jax.Array:
    """Splits an axis into blocks: [..., S, ...] to [S / block, ..., block, ...]."""
    shape = (*x.shape[:axis], x.shape[axis] // block, block, *x.shape[axis + 1 :])
    return jnp.moveaxis(x.reshape(shape), axis, 0)


def _joined(x: jax.Array, axis: int) -> jax.Array:
    """The inverse of `_blocks`."""
    x = jnp.moveaxis(x, 0, axis)
    return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])


def _forward(query, key, value, bias, mask, block):
    query, key, value = heads_first(query), heads_first(key), heads_first(value)  # [B, H, T, d]

    def add(carry, blocks):
        largest, total, out = carry  # [B, H, T, 1] twice, [B, H, T, d]
        keys, values, biases, masks = blocks
        logits = masked_logits(  # [B, H, T, block]
            query, keys, bias if biases is None else biases, mask if masks is None else masks
        )
        new = jnp.maximum(largest, logits.max(axis=-1, keepdims=True))
        # Running softmax: `old` rescales the sums of earlier blocks to the new maximum.
        weights, old = jnp.exp(logits - new), jnp.exp(largest - new)
        total = total * old + weights.sum(axis=-1, keepdims=True)
        out = out * old + product("bhts,bhsd->bhtd", weights.astype(values.dtype), values)
        return (new, total, out), None

    rows = (*query.shape[:3], 1)
    out = jnp.zeros((*query.shape[:3], value.shape[3]), jnp.float32)
    start = (jnp.full(rows, MINIMUM), jnp.zeros(rows), out)
    (largest, total, out), _ = jax.lax.scan(add, start, _split(key, value, bias, mask, block))
    total = jnp.where(total == 0, 1, total)  # rows without any valid key return 0
    out = (out / total).astype(value.dtype)
    return heads_first(out), (query, key, value, bias, mask, largest, total, out)


def _backward(block, saved, gradient):
    """As in `mae_jax.ops.attention.xla`, one block of keys at a time."""
    query, key, value, bias, mask, largest, total, out = saved
    gradient = heads_first(gradient)  # [B, H, T, d]
    offset = (gradient.astype(jnp.float32) * out).sum(axis=-1, keepdims=True)  # [B, H, T, 1]

    def add(carry, blocks):
        d_query, d_bias = carry
        keys, values, biases, masks = blocks
        logits = masked_logits(
            query, keys, bias if biases is None else biases, mask if masks is None else masks
        )
        weights = jnp.exp(logits - largest) / total  # [B, H, T, block]
        d_logits = weights * (product("bhtd,bhsd->bhts", gradient, values) - offset)
        d_block = None
        if biases is not None:
            d_block = sum_to(d_logits, biases)
        elif bias is not None:
            d_bias += sum_to(d_logits, d_bias)
        d_logits = (d_logits * query.shape[-1] ** -0.5).astype(values.dtype)
        d_query += product("bhts,bhsd->bhtd", d_logits, keys)
        d_key = product("bhts,bhtd->bhsd", d_logits, query).astype(keys.dtype)  # of this block
        d_value = product("bhts,bhtd->bhsd", weights.astype(values.dtype), gradient)
        return (d_query, d_bias), (d_key, d_value.astype(values.dtype), d_block)

    zeros = jnp.zeros(query.shape, jnp.float32)
    start = (zeros, None if bias is None else jnp.zeros(bias.shape, jnp.float32))
    (d_query, d_bias), (d_key, d_value, d_blocks) = jax.lax.scan(
        add, start, _split(key, value, bias, mask, block)
    )
    if d_blocks is not None:
        d_bias = _joined(d_blocks, 3)
    d_bias = None if bias is None else d_bias.astype(bias.dtype)
    d_key, d_value = _joined(d_key, 2), _joined(d_value, 2)
    return (
        *(heads_first(x.astype(query.dtype)) for x in (d_query, d_key, d_value)),
        d_bias,
        None,
    )


_attend.defvjp(_forward, _backward)
