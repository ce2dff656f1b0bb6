"""Scaled dot-product attention (arXiv 1706.03762), computed by one of several kinds of kernels.

A kind is a module beside this one with two functions: `attend(query, key, value, bias, mask)` and
`refusal(call)`, why it cannot compute a call, or ''. All give the same numbers to rounding.
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
"""Fused kernels, and the platform that each of them is for."""
WAY_OUT = "attention=auto (decoder_attention=auto for a decoder) chooses a kind that can"
LONG = 1024
"""Tokens from which `auto` leaves `xla` for `blockwise`: T x S weights of a head are 4 MB there,
and kept for the backward pass."""

_chosen: ContextVar[dict[str, None] | None] = ContextVar("chosen", default=None)


def choose(call: Call) -> str:
    """The kind that `auto` takes: the fused kernel of the platform where it can compute the call,
    else `xla`, or for long sequences `blockwise`.
    """
    for kind, platform in PLATFORMS.items():
        if call.platform == platform and not KINDS[kind].refusal(call):
            return kind
    return "blockwise" if max(call.queries, call.keys) >= LONG else "xla"


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    kind: str = "auto",
) -> jax.Array:
    """softmax(query key^T / sqrt(d) + bias) value, for every head; the softmax is float32.

    Args:
        query: [B, T, H, d].
        key, value: [B, S, H, d], of the same type.
        bias: broadcastable to [B, H, T, S] and with as many axes; its gradient has its shape.
        mask: bool, likewise; False: the key is masked out. A row without any valid key returns 0.
        kind: 'xla' and 'blockwise' (memory grows with T + S) run everywhere; 'cudnn' on NVIDIA
            GPUs in 16 bits; 'pallas' on TPUs for up to 512 tokens, without bias, with masks
            [B, 1, 1, S]; 'auto' takes what suits the mesh, see `choose`. The mesh is that of
            `jax.set_mesh` or `jax.sharding.use_abstract_mesh`; 'cudnn' and 'pallas' need one.

    Returns:
        [B, T, H, d] of the type of `value`.

    Raises:
        UserError: a kind that there is not, or that cannot compute this.
    """
    check_choice("attention", kind, CHOICES)
    call = call_of(query, key, bias, mask)
    _check_shapes(call)
    kind = choose(call) if kind == "auto" else kind
    if not call.platform and kind in PLATFORMS:
        reason = "needs to know its devices: call it under jax.set_mesh(mesh)"
    else:
        reason = KINDS[kind].refusal(call)
    if reason:
        raise UserError(f"attention={kind} {reason}; {WAY_OUT}")
    chosen = _chosen.get()
    if chosen is not None:
        keys = "" if call.queries == call.keys else f" on {call.keys}"
        line = f"{kind} for {call.queries} tokens{keys}, {call.heads} heads of {call.size}"
        chosen[line] = None
    return KINDS[kind].attend(query, key, value, bias, mask)


def attention_weights(
    query: jax.Array,
    key: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """The weights [B, H, T, S] float32 that `attention` gives to the values, to look at them: they
    are kept whole, and computed without a kernel of their own.

    Args:
        query, key, bias, mask: as for `attention`.
    """
    _check_shapes(call_of(query, key, bias, mask))
    logits = xla.masked_logits(xla.heads_first(query), xla.heads_first(key), bias, mask)
    # A row without any valid key has weights of 0.
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
    """The kinds of attention that are traced inside, one line each as the keys of a dict in the
    order of their first use: 'pallas for 197 tokens, 16 heads of 32'.
    """
    token = _chosen.set({})
    try:
        yield _chosen.get()
    finally:
        _chosen.reset(token)


def check_attention(name: str, kind: str, *, width: int, heads: int, dtype) -> None:
    """Raises UserError unless attention of this kind can be built, on the devices that it is for.

    Args:
        name: what it is a part of, for the message.
        kind: one of `CHOICES`.
        dtype: what the products run in.
    """
    check_choice(f"{name}: attention", kind, CHOICES)
    if kind in PLATFORMS:
        mesh = (PLATFORMS[kind], "", ("data", "fsdp"), 1)
        reason = KINDS[kind].refusal(Call(*mesh, jnp.dtype(dtype), 1, 1, 1, heads, width // heads))
        if reason:
            raise UserError(f"{name}: attention={kind} {reason}; {WAY_OUT}")


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
