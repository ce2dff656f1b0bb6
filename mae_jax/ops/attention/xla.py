"""Attention in plain XLA with a custom gradient, for any device.

The softmax is normalized after the product with the values, which divides T x d numbers per head
instead of T x S. The backward pass reuses the saved exponentials. It computes the row sums in the
gradient of the softmax from the output (arXiv 2205.14135, B.4), so that each direction traverses
its T x S array once. In the layout [B, H, T, d], the compiler fuses the products of the logits with
the elementwise operations that follow.
"""

import jax
import jax.numpy as jnp

from mae_jax.ops.attention.call import Call

MINIMUM = jnp.finfo(jnp.float32).min
"""Lower bound for the maximum of a row: without any valid key, exponentials are then 0, not NaN."""


def refusal(call: Call) -> str:
    """Returns '': this kind supports every call."""
    del call
    return ""


def product(formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """An einsum with float32 accumulation."""
    return jnp.einsum(formula, left, right, preferred_element_type=jnp.float32)


def heads_first(x: jax.Array) -> jax.Array:
    """[B, T, H, d] to [B, H, T, d], or back."""
    return x.transpose(0, 2, 1, 3)


def masked_logits(query, key, bias, mask) -> jax.Array:
    """query key^T / sqrt(d) + bias, -inf where the mask is False: [B, H, T, S] float32.

    Args:
        query: [B, H, T, d].
        key: [B, H, S, d].
        bias, mask: None, or broadcastable to the result.
    """
    logits = product("bhtd,bhsd->bhts", query, key) * query.shape[-1] ** -0.5
    if bias is not None:
        logits += bias.astype(jnp.float32)
    return logits if mask is None else jnp.where(mask, logits, -jnp.inf)


def sum_to(gradient: jax.Array, like: jax.Array) -> jax.Array:
    """The gradient of a broadcast `like`: sums over the axes in which `like` has length 1."""
    axes = [axis for axis, length in enumerate(like.shape) if length < gradient.shape[axis]]
    return gradient.sum(axis=axes, keepdims=True).astype(like.dtype)


@jax.custom_vjp
def attend(query, key, value, bias=None, mask=None) -> jax.Array:
    """See `mae_jax.ops.attention.attention`."""
    return _forward(query, key, value, bias, mask)[0]


def _forward(query, key, value, bias, mask):
    query, key, value = heads_first(query), heads_first(key), heads_first(value)  # [B, H, T, d]
    logits = masked_logits(query, key, bias, mask)  # [B, H, T, S]
    largest = jnp.maximum(logits.max(axis=-1, keepdims=True), MINIMUM)  # [B, H, T, 1]
    weights = jnp.exp(logits - largest)
    total = weights.sum(axis=-1, keepdims=True)
    if bias is not None or mask is not None:  # else it is at least 1
        total = jnp.where(total == 0, 1, total)
    weights = weights.astype(value.dtype)
    out = product("bhts,bhsd->bhtd", weights, value) / total
    out = heads_first(out.astype(value.dtype))
    # Saved as [B, T, H d], which spares the compiler a layout for d < 128 channels.
    flat = out.reshape(*out.shape[:2], -1)
    return flat.reshape(out.shape), (query, key, value, bias, weights, total, flat)


def _backward(saved, gradient):
    """With p = weights / total, d_value = p^T g and d_logits = p (g v^T - sum over d of g out)."""
    query, key, value, bias, weights, total, out = saved
    batch, heads, length, size = query.shape
    gradient = gradient.reshape(out.shape)
    each = lambda x: heads_first(x.reshape(batch, length, heads, value.shape[-1]))
    offset = each(gradient.astype(jnp.float32) * out).sum(axis=-1, keepdims=True)  # [B, H, T, 1]
    gradient = each(gradient)  # [B, H, T, d]
    d_logits = weights * (product("bhtd,bhsd->bhts", gradient, value) - offset)
    d_bias = None if bias is None else sum_to(d_logits / total, bias)
    d_logits = (d_logits * (size**-0.5 / total)).astype(value.dtype)  # [B, H, T, S]
    scaled = (gradient / total).astype(value.dtype)
    d_query = product("bhts,bhsd->bhtd", d_logits, key)
    d_key = product("bhts,bhtd->bhsd", d_logits, query)
    d_value = product("bhts,bhtd->bhsd", weights, scaled)
    gradients = (heads_first(x.astype(value.dtype)) for x in (d_query, d_key, d_value))
    return *gradients, d_bias, None


attend.defvjp(_forward, _backward)
