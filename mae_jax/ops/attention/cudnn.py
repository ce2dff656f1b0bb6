"""The fused attention of cuDNN, through `jax.nn.dot_product_attention`, for NVIDIA GPUs from the
Ampere generation on.

Its backward pass refuses odd numbers of tokens: jax 0.10 takes the empty array that stands for no
bias for a bias, which must have even sides. Odd sequences get one more token, and the true lengths
are told to the kernel, which leaves the last one out of softmax and gradients.
"""

import re

import jax
import jax.numpy as jnp

from mae_jax.ops.attention.call import Call

OLDER = re.compile(
    r"\b([KPV]100|G[PV]100|[KMP]\d0|P4|T4|T\d{3,4}|GTX|TITAN|\d{3}MX?|MX\d+"
    r"|RTX (20\d\d|[3-8]000)\b(?!.* Ada))\b"
)
"""Names of GPUs before Ampere, for which there is no fused kernel."""
AMD = re.compile(r"\b(AMD|Instinct|Radeon|gfx\d+)")


def refusal(call: Call) -> str:
    """Why this kind cannot compute a call; empty if it can."""
    if call.platform != "gpu" or AMD.search(call.device):
        here = call.device if call.platform == "gpu" else call.platform.upper()
        return f"needs an NVIDIA GPU, and this is a {here}"
    if OLDER.search(call.device):
        return f"needs an NVIDIA GPU of the Ampere generation or later, and this is {call.device}"
    if jnp.dtype(call.dtype).itemsize != 2:
        return f"computes in 16 bits and not in {jnp.dtype(call.dtype).name}: set dtype=bfloat16"
    if call.size % 8 or call.size > 128:
        return (
            f"wants heads of 8, 16, ... 128 channels and these have {call.size}: change width or "
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
        whole = lambda length: jnp.full(len(query), length, jnp.int32)
        lengths = dict(query_seq_lengths=whole(queries), key_value_seq_lengths=whole(keys))
    shape = (1, 1, query.shape[1], key.shape[1])

    def even(x: jax.Array, fill) -> jax.Array:
        """With both of its last sides whole, as the kernel wants them."""
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
    # The kernel adds a large negative number to what is masked: a row of it alone is their mean.
    rows = jnp.broadcast_to(mask.any(axis=3), (len(out), out.shape[2], queries))
    return jnp.where(rows.transpose(0, 2, 1)[..., None], out, 0)
