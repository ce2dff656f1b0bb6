"""Scaled dot-product attention (arXiv 1706.03762), with a choice of kernels.

A kind of kernel is a module of this package with two functions:
`attend(query, key, value, bias, mask)`, and `refusal(call)`, which returns the reason why it does
not support a call, or an empty string. All kinds return equal numbers up to rounding.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import jax
import jax.numpy as jnp

from mae_jax.ops.attention import blockwise, cudnn, pallas, xla
from mae_jax.ops.attention.call import Call, call_of
from mae_jax.spec import check_choice
from mae_jax.types import UserError

KINDS = {"xla": xla, "blockwise": blockwise, "cudnn": cudnn, "pallas": pallas}
CHOICES = ("auto", *KINDS)
PLATFORMS = {"pallas": "tpu", "cudnn": "gpu"}
"""The fused kernels, and the platform of each."""
WAY_OUT = "attention=auto (decoder_attention=auto for a decoder) chooses a kind that can"
LONG = 1024
"""Number of tokens from which `auto` prefers `blockwise` to `xla`, which keeps the T x S weights of
each head for the backward pass: 4 MB at this length."""

_chosen: ContextVar[dict[str, None] | None] = ContextVar("chosen", default=None)


def choose(call: Call) -> str:
    """The kind that `auto` selects: the platform's fused kernel if it supports the call, otherwise
    `xla`, or `blockwise` for long sequences.
    """
    for kind, platform in PLATFORMS.items():
        if call.platform == platform and not KINDS[kind].refusal(call):
            return kind
    sizes = (call.queries, call.keys)
    # Sizes that an export leaves open are symbols, which only `xla` supports.
    known = all(isinstance(size, int) for size in sizes)
    return "blockwise" if known and max(sizes) >= LONG else "xla"


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    kind: str = "auto",
) -> jax.Array:
    """softmax(query key^T / sqrt(d) + bias) value for every head, with a float32 softmax.

    Args:
        query: [B, T, H, d].
        key: [B, S, H, d].
        value: [B, S, H, d], of the same type; or with fewer channels, e.
        bias: [B, H, T, S], or 1 instead of any of these; its gradient has its shape.
        mask: bool, broadcast likewise; False masks a key out. Rows without any valid key return 0.
        kind: 'xla' and 'blockwise' (memory grows with T + S) run everywhere; 'cudnn' on NVIDIA
            GPUs in 16 bits; 'pallas' on TPUs for up to 512 tokens, without bias, with masks
            [B, 1, 1, S]; 'auto' chooses by the devices of the mesh, see `choose`. The mesh is set
            by `jax.set_mesh` or `jax.sharding.use_abstract_mesh`; 'cudnn' and 'pallas' need one.

    Returns:
        [B, T, H, d] of the type of `value`, or with its e channels.

    Raises:
        UserError: an unknown kind, or one that does not support this call.
    """
    check_choice("attention", kind, CHOICES)
    call = call_of(query, key, bias, mask)
    _check_shapes(call)
    kind = choose(call) if kind == "auto" else kind
    if not call.platform and kind in PLATFORMS:  # without a mesh, tracing does not know the devices
        reason = "needs to know its devices: call it under jax.set_mesh(mesh)"
    else:
        reason = KINDS[kind].refusal(call)
    if reason:
        raise UserError(f"attention={kind} {reason}; {WAY_OUT}")
    chosen = _chosen.get()
    if chosen is not None:
        keys = "" if call.queries == call.keys else f" on {call.keys}"
        line = f"{kind} for {call.queries} tokens{keys}, {call.heads} heads of {call.size}"
        chosen[line] = None  # a dict as an ordered set
    attend, channels = KINDS[kind].attend, value.shape[-1]
    if kind in PLATFORMS and channels < query.shape[-1]:  # fused kernels need equal shapes
        value = jnp.pad(value, [(0, 0)] * 3 + [(0, query.shape[-1] - channels)])
        return attend(query, key, value, bias, mask)[..., :channels]
    return attend(query, key, value, bias, mask)


def attention_weights(
    query: jax.Array,
    key: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """The attention weights [B, H, T, S] float32, for visualization: computed in plain XLA, which
    holds all of them in memory.

    Args:
        query, key, bias, mask: as in `attention`.
    """
    _check_shapes(call_of(query, key, bias, mask))
    # [B, H, T, S]
    logits = xla.masked_logits(xla.heads_first(query), xla.heads_first(key), bias, mask)
    # `where` sets the weights of a row without any valid key to 0 instead of NaN.
    return jax.nn.softmax(logits, axis=-1, where=None if mask is None else logits > -jnp.inf)


def _check_shapes(call: Call) -> None:
    """Raises UserError unless bias and mask can be broadcast to the logits."""
    logits = (call.batch, call.heads, call.queries, call.keys)
    for name, shape in (("bias", call.bias), ("mask", call.mask)):
        if shape is None:
            continue
        if len(shape) != 4 or any(n not in (1, m) for n, m in zip(shape, logits, strict=True)):
            raise UserError(
                f"attention: a {name} of shape {list(shape)} does not fit logits [B, H, T, S] = "
                f"{list(logits)}: give it 4 axes, each of that length or 1"
            )


@contextlib.contextmanager
def record_kinds() -> Iterator[dict[str, None]]:
    """Records the kinds of attention that are traced within the context, as the keys of a dict in
    order of first use, e.g. 'pallas for 197 tokens, 16 heads of 32'.
    """
    token = _chosen.set({})
    try:
        yield _chosen.get()
    finally:
        _chosen.reset(token)


def check_attention(name: str, kind: str, *, width: int, heads: int, dtype) -> None:
    """Raises UserError unless this kind, on its own platform, supports such a network.

    Args:
        name: name of the network, for the message.
        kind: one of `CHOICES`.
        width: channels of the tokens.
        heads: number of heads.
        dtype: type of the matrix products.
    """
    check_choice(f"{name}: attention", kind, CHOICES)
    if kind in PLATFORMS:
        # Batch and tokens of 1, which every kind supports: only width, heads and type are checked.
        mesh = (PLATFORMS[kind], "", ("data", "fsdp"), 1)
        reason = KINDS[kind].refusal(Call(*mesh, jnp.dtype(dtype), 1, 1, 1, heads, width // heads))
        if reason:
            raise UserError(f"{name}: attention={kind} {reason}; {WAY_OUT}")


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def split(x: jax.Array, parts: int) -> list[jax.Array]:
    """Splits the last axis into equal parts. The custom gradient concatenates the parts' gradients;
    the default one would add one zero-padded array for each.
    """
    return jnp.split(x, parts, axis=-1)


split.defvjp(
    lambda x, parts: (split(x, parts), None),
    lambda parts, _, gradients: (jnp.concatenate(gradients, axis=-1),),
)
