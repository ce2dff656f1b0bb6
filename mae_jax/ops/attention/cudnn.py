"""The fused attention of cuDNN, through `jax.nn.dot_product_attention`, for NVIDIA GPUs from the
Ampere generation on.

Its backward pass rejects odd sequence lengths: jax 0.10 checks the empty array of a missing bias
like a bias, whose lengths must be even. Odd sequences are therefore padded by one token. The kernel
gets the true lengths, and excludes the padding from softmax and gradients.
"""

import re

import jax
import jax.numpy as jnp

from mae_jax.ops.attention.call import Call

OLDER = re.compile(
    r"\b([KPV]100|G[PV]100|[KMP]\d0|P4|T4|T\d{3,4}|GTX|TITAN|\d{3}MX?|MX\d+"
    r"|RTX (20\d\d|[3-8]000)\b(?!.* Ada))\b"
)
"""Names of GPUs before Ampere, which the fused kernel does not support."""
AMD = re.compile(r"\b(AMD|Instinct|Radeon|gfx\d+)")


def refusal(call: Call) -> str:
    """The reason why this kind does not support a call; '' if it does."""
    if call.platform != "gpu" or AMD.search(call.device):
        device = call.device if call.platform == "gpu" else call.platform.upper()
        return f"needs an NVIDIA GPU, and this is a {device}"
    if OLDER.search(call.device):
        return f"needs an NVIDIA GPU of the Ampere generation or later, and this is {call.device}"
    if jnp.dtype(call.dtype).itemsize != 2:
        return f"computes in 16 bits and not in {jnp.dtype(call.dtype).name}: set dtype=bfloat16"
    if call.size % 8 or call.size > 128:
        return (
            f"needs heads of 8, 16, ... 128 channels and these have {call.size}: change width or "
            "heads"
        )
    return ""


def attend(query, key, value, bias=None, mask=None) -> jax.Array:
    """See `mae_jax.ops.attention.attention`."""
    queries, keys = query.shape[1], key.shape[1]
    lengths = {}
    more = (queries % 2, keys % 2)
    if any(more):
        query, key, value = (
            jnp.pad(x, [(0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0)]) for x in (query, key, value)
        )
        repeat = lambda length: jnp.full(len(query), length, jnp.int32)  # [B]
        lengths = dict(query_seq_lengths=repeat(queries), key_value_seq_lengths=repeat(keys))
    shape = (1, 1, query.shape[1], key.shape[1])

    def even(x: jax.Array, fill) -> jax.Array:
        """Broadcasts the last two axes, as the kernel requires, and pads them to even lengths."""
        x = jnp.broadcast_to(x, (*x.shape[:2], queries, keys))
        rows = [(0, 0), (0, 0), (0, shape[2] - queries), (0, shape[3] - keys)]
        return jnp.pad(x, rows, constant_values=fill)

    out = jax.nn.dot_product_attention(
        query,
        key,
        value,
        bias=None if bias is None else even(bias, 0).astype(query.dtype),
        mask=None if mask is None else even(mask, False),
        implementation="cudnn",
        **lengths,
    )[:, :queries]
    if mask is None:
        return out
    # The kernel masks by adding a large negative number, so a row without any valid key returns the
    # mean of all values. Set it to 0. [B or 1, H or 1, T] to [B, H, T].
    rows = jnp.broadcast_to(mask.any(axis=3), (len(out), out.shape[2], queries))
    return jnp.where(rows.transpose(0, 2, 1)[..., None], out, 0)
