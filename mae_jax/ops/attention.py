"""Scaled dot-product attention (arXiv 1706.03762) with a gradient of its own.

The softmax is left unnormalised until after the product with the values, which is then divided by
the sums: T x d numbers a head instead of T x T. The gradient keeps those exponentials, and gets
the term that the softmax subtracts from the output (as in arXiv 2205.14135, B.4), so that each
direction goes over its T x T array once. With one batch of matrices per head, [B, H, T, d], the
compiler fuses the products of the logits with the elementwise work that follows them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mae_jax.spec import check_choice
from mae_jax.types import UserError

KINDS = ("xla", "cudnn")


def check_attention(name: str, kind: str, *, width: int, heads: int, dtype: Any) -> None:
    """Raises UserError unless attention of this kind can be built.

    Args:
        name: what it is a part of, for the message.
        kind: one of `KINDS`; 'cudnn' computes in 16 bits only.
        dtype: what the products run in.
    """
    check_choice(f"{name}: attention", kind, KINDS)
    size = width // heads
    if kind == "cudnn" and jnp.dtype(dtype).itemsize != 2:
        raise UserError(
            f"{name}: attention=cudnn computes in 16 bits and not in {jnp.dtype(dtype).name}: set "
            "dtype=bfloat16, or attention=xla"
        )
    if kind == "cudnn" and (size % 8 or size > 128):
        raise UserError(
            f"{name}: attention=cudnn wants heads of 8, 16, ... 128 channels and these have "
            f"{size}: change width or heads, or set attention=xla"
        )


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, kind: str = "xla"
) -> jax.Array:
    """softmax(query key^T / sqrt(d)) value, for every head; the softmax is float32.

    Args:
        query: [B, T, H, d].
        key, value: [B, S, H, d], of the same type.
        kind: 'xla', which runs everywhere, or 'cudnn', the fused kernel of NVIDIA GPUs.

    Returns:
        [B, T, H, d] of the type of `value`.

    Raises:
        UserError: 'cudnn' where there is no NVIDIA GPU.
    """
    if kind == "cudnn":
        if jax.default_backend() != "gpu":
            raise UserError(
                f"attention=cudnn needs an NVIDIA GPU and this is a {jax.default_backend()}: set "
                "attention=xla"
            )
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    return _attention(query, key, value).reshape(query.shape)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def split(x: jax.Array, parts: int) -> list[jax.Array]:
    """The last axis in equal parts. The gradient joins theirs, where that of slices adds arrays
    that are zero outside of each.
    """
    return jnp.split(x, parts, axis=-1)


split.defvjp(
    lambda x, parts: (split(x, parts), None),
    lambda parts, _, gradients: (jnp.concatenate(gradients, axis=-1),),
)


def _product(formula: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """A product summed up in float32."""
    return jnp.einsum(formula, left, right, preferred_element_type=jnp.float32)


def _exponentials(query: jax.Array, key: jax.Array) -> jax.Array:
    """exp(logit - the largest logit of the row), [B, H, T, S] float32."""
    logits = _product("bhtd,bhsd->bhts", query, key) * query.shape[-1] ** -0.5
    return jnp.exp(logits - logits.max(axis=-1, keepdims=True))


def _turned(x: jax.Array) -> jax.Array:
    """[B, T, H, d] to [B, H, T, d], or back."""
    return x.transpose(0, 2, 1, 3)


@jax.custom_vjp
def _attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """[B, T, H, d], [B, S, H, d] twice, to [B, T, H d]."""
    return _forward(query, key, value)[0]


def _forward(query, key, value):
    query, key, value = _turned(query), _turned(key), _turned(value)
    weights = _exponentials(query, key)
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights.astype(value.dtype)
    out = _turned((_product("bhts,bhsd->bhtd", weights, value) / total).astype(value.dtype))
    out = out.reshape(*out.shape[:2], -1)
    return out, (query, key, value, weights, total, out)


def _backward(saved, gradient):
    """With p = weights / total: dv = p^T g, and of the logits p (g v^T - sum over d of g out)."""
    query, key, value, weights, total, out = saved
    heads = lambda x: _turned(x.reshape(*x.shape[:2], query.shape[1], -1))
    offset = heads(gradient.astype(jnp.float32) * out).sum(axis=-1, keepdims=True)
    gradient = heads(gradient)
    d_logits = weights * (_product("bhtd,bhsd->bhts", gradient, value) - offset)
    d_logits = (d_logits * (query.shape[-1] ** -0.5 / total)).astype(value.dtype)
    shares = (gradient / total).astype(value.dtype)
    d_query = _product("bhts,bhsd->bhtd", d_logits, key)
    d_key = _product("bhts,bhtd->bhsd", d_logits, query)
    d_value = _product("bhts,bhtd->bhsd", weights, shares)
    return tuple(_turned(x.astype(value.dtype)) for x in (d_query, d_key, d_value))


_attention.defvjp(_forward, _backward)
