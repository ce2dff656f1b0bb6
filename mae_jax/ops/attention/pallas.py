"""A fused attention kernel for TPUs, for the short sequences of masked autoencoders.

A program computes a few heads of several images, one image after another, with all T x S weights in
fast memory (VMEM). Slow memory (HBM) holds only queries, keys, values and the output. The backward
pass recomputes the weights. The layout stays [T, H d], which needs no transposition and fills the
128 lanes of a TPU's tiles; [H, T, d] with d = 32 would fill a quarter of them.

JAX's own kernels, the flash and splash attention of `jax.experimental.pallas.ops.tpu`, need 128
channels per head and multiples of 128 tokens. Padded to these, heads of 32 or 64 channels move more
memory than plain XLA.

XLA does not partition kernels, so `shard_map` runs them on each device's own images.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P

from mae_jax.ops.attention.call import Call

LONGEST = 512
"""Maximum number of tokens whose complete weights fit into VMEM."""
LANES = 128
FAST_MEMORY = 12 * 2**20
"""Target for the bytes of VMEM that a program uses for its blocks and weights."""
LIMITS = {"TPU v4": 16 * 2**20}
"""Device kind -> bytes of VMEM that a program may use, if not LIMIT: all that a core has."""
LIMIT = 28 * 2**20
"""Bytes of VMEM that a program may use on a TPU v5 or later, out of 64 MiB or more; XLA keeps other
arrays there."""
OLD = ("TPU v2", "TPU v3", "TPU v4 lite")
"""Device kinds for which the kernels have never been compiled."""
MOST_IMAGES = 16
"""Maximum number of images of a program: enough to amortize the cost of starting it."""
ROWS = P(("data", "fsdp"))
"""Sharding of a batch over the mesh of `mae_jax.engine.mesh`."""


def refusal(call: Call) -> str:
    """The reason why this kind does not support a call; '' if it does."""
    if call.platform != "tpu":
        return f"needs a TPU, and this is a {call.platform.upper()}"
    if call.device in OLD:
        return f"needs a TPU v4 or later, and this is a {call.device}"
    if set(ROWS[0]) - set(call.axes):
        return f"needs a mesh with the axes data and fsdp, and these are {', '.join(call.axes)}"
    if call.batch % call.devices:
        return f"splits a batch over {call.devices} devices, and this one has {call.batch} rows"
    if jnp.dtype(call.dtype) not in (jnp.bfloat16, jnp.float32):
        return f"computes in bfloat16 or float32 and not in {jnp.dtype(call.dtype).name}"
    if max(call.queries, call.keys) > LONGEST:
        return f"takes at most {LONGEST} tokens and these are {max(call.queries, call.keys)}"
    if call.size % 8:
        return f"needs heads of a multiple of 8 channels and these have {call.size}"
    if call.bias is not None:
        return "supports no bias"
    if call.mask is not None and call.mask[1:3] != (1, 1):
        return f"supports masks of keys only, [B, 1, 1, S], and this one is {list(call.mask)}"
    channels = heads_at_once(call.heads, call.size) * call.size
    rows, itemsize = [call.queries] * 3 + [call.keys] * 4, jnp.dtype(call.dtype).itemsize
    needed = _weights_bytes(rows) + _block_bytes(rows, channels, itemsize)
    if needed > LIMITS.get(call.device, LIMIT):
        return f"needs {needed / 2**20:.0f} MiB of fast memory for {channels} channels at a time"
    return ""


def attend(query, key, value, bias=None, mask=None, *, interpret: bool = False) -> jax.Array:
    """See `mae_jax.ops.attention.attention`; needs a mesh with the axes 'data' and 'fsdp'.

    Args:
        interpret: interpret the kernels in plain JAX, on any device; for tests.
    """
    assert bias is None, "see `refusal`"
    flat = [x.reshape(*x.shape[:2], -1) for x in (query, key, value)]  # [B, T, H d]
    if mask is not None:  # [B, 1, 1, S] to [B, 1, S]
        mask = jnp.broadcast_to(mask[:, 0], (len(query), 1, key.shape[1])).astype(jnp.float32)
    return _attend(*flat, mask, query.shape[2], interpret).reshape(query.shape)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(query, key, value, mask, heads, interpret):
    """[B, T, H d], [B, S, H d] twice and [B, 1, S] to [B, T, H d]."""
    kernel = partial(_forward_kernel, size=query.shape[2] // heads, masked=mask is not None)
    return _call(kernel, mask, [query, key, value], [query], heads, interpret)[0]


def _call(kernel, mask, inputs, outputs, heads: int, interpret: bool) -> list[jax.Array]:
    """Runs a kernel on groups of images and heads.

    Args:
        kernel: a function of an image's index in its block and the references to the blocks:
            mask (unless None), inputs, outputs.
        mask: None, or [B, 1, S], shared by all heads.
        inputs: arrays [B, T, H d].
        outputs: arrays with the shapes and types of the outputs.
    """
    width = inputs[0].shape[2]
    channels = heads_at_once(heads, width // heads) * width // heads
    device = jax.sharding.get_abstract_mesh().abstract_device
    limit = LIMITS.get(device.device_kind if device else "", LIMIT)
    masks = [] if mask is None else [mask]

    def local(*arrays):
        count = len(arrays[0])
        images = images_at_once(count, channels, [*inputs, *outputs])

        def spec(x: jax.Array) -> pl.BlockSpec:
            block = (images, x.shape[1], channels)  # of [B, T, H d]
            return pl.BlockSpec(block, lambda image, group: (image, 0, group))

        shared = lambda x: pl.BlockSpec((images, 1, x.shape[2]), lambda image, _: (image, 0, 0))
        return pl.pallas_call(
            partial(_each_image, kernel),
            grid=(count // images, width // channels),
            in_specs=[*map(shared, masks), *map(spec, inputs)],
            out_specs=[spec(x) for x in outputs],
            out_shape=[jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype) for x in outputs],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=limit
            ),
            interpret=interpret,
        )(*arrays)

    sharded = jax.shard_map(local, in_specs=ROWS, out_specs=ROWS, check_vma=False)
    return sharded(*masks, *inputs)


def heads_at_once(heads: int, size: int) -> int:
    """Number of heads per program: the fewest whose channels fill all lanes. The kernel unrolls its
    loop over heads, so fewer heads compile faster.
    """
    whole = (n for n in range(1, heads) if heads % n == 0 and n * size % LANES == 0)
    return next(whole, heads)


def images_at_once(count: int, channels: int, arrays: list[jax.Array]) -> int:
    """Number of images per program: the largest divisor of `count` that fits into `FAST_MEMORY`.

    Args:
        count: number of images on a device.
        channels: channels of a program's heads.
        arrays: inputs and outputs of the kernel, [B, T, H d].
    """
    tokens = [x.shape[1] for x in arrays]
    image = _block_bytes(tokens, channels, arrays[0].dtype.itemsize)
    most = max(1, (FAST_MEMORY - _weights_bytes(tokens)) // image)
    return max(n for n in range(1, MOST_IMAGES + 1) if count % n == 0 and n <= most)


def _weights_bytes(tokens: list[int]) -> int:
    """Bytes of VMEM for intermediate results: 8 arrays [T, S] float32, for two heads at a time."""
    most = max(tokens)
    return 8 * 4 * (-(-most // 8) * 8) * (-(-most // LANES) * LANES)


def _block_bytes(tokens: list[int], channels: int, itemsize: int) -> int:
    """Bytes of VMEM for the blocks of one image, twice because the next one is being loaded."""
    return 2 * sum(-(-rows // 8) * 8 for rows in tokens) * channels * itemsize


def _each_image(kernel, *refs) -> None:
    """Runs the kernel of a single image on each image of a block."""

    @pl.loop(0, refs[0].shape[0])
    def _(image):
        kernel(image, *refs)


def _weights(query, key, mask) -> tuple[jax.Array, jax.Array]:
    """Unnormalized weights of one head, exp(logit - row maximum) [T, S], and row sums [T, 1]."""
    logits = _product(query, key, 1, 1) * query.shape[1] ** -0.5  # [T, S]
    if mask is not None:
        logits = jnp.where(mask > 0, logits, -jnp.inf)
    # The lower bound avoids -inf - -inf = NaN in rows without any valid key.
    largest = jnp.maximum(logits.max(axis=1, keepdims=True), jnp.finfo(jnp.float32).min)
    weights = jnp.exp(logits - largest)
    total = weights.sum(axis=1, keepdims=True)
    return weights, total if mask is None else jnp.where(total == 0, 1, total)


def _product(left, right, left_axis: int, right_axis: int) -> jax.Array:
    """The product of two matrices, contracted over these axes with float32 accumulation."""
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)


def _heads(width: int, size: int) -> list[slice]:
    """The slice of channels of each head."""
    return [slice(start, start + size) for start in range(0, width, size)]


def _forward_kernel(image, *refs, size: int, masked: bool):
    mask, query, key, value, out = refs if masked else (None, *refs)
    valid = None if mask is None else mask[image]  # [1, S]
    for one in _heads(query.shape[2], size):
        values = value[image, :, one]  # [S, d]
        weights, total = _weights(query[image, :, one], key[image, :, one], valid)
        # [T, d]. As in `xla`, normalized after the product: T x d divisions instead of T x S.
        product = _product(weights.astype(values.dtype), values, 1, 0) / total
        out[image, :, one] = product.astype(out.dtype)


def _backward_kernel(image, *refs, size: int, masked: bool):
    """As in `mae_jax.ops.attention.xla`, with the offset as the sum over S of p (g v^T)."""
    mask, query, key, value, gradient, *outputs = refs if masked else (None, *refs)
    valid = None if mask is None else mask[image]
    d_query, d_key, d_value = outputs
    for one in _heads(query.shape[2], size):
        q, k, v, g = (x[image, :, one] for x in (query, key, value, gradient))  # [T or S, d]
        weights, total = _weights(q, k, valid)
        weights = weights / total
        d_weights = _product(g, v, 1, 1)  # [T, S]
        offset = (weights * d_weights).sum(axis=1, keepdims=True)
        d_logits = (weights * (d_weights - offset) * q.shape[1] ** -0.5).astype(q.dtype)
        d_query[image, :, one] = _product(d_logits, k, 1, 0).astype(d_query.dtype)
        d_key[image, :, one] = _product(d_logits, q, 0, 0).astype(d_key.dtype)
        d_value[image, :, one] = _product(weights.astype(g.dtype), g, 0, 0).astype(d_value.dtype)


def _forward(query, key, value, mask, heads, interpret):
    return _attend(query, key, value, mask, heads, interpret), (query, key, value, mask)


def _backward(heads, interpret, saved, gradient):
    query, key, value, mask = saved
    kernel = partial(_backward_kernel, size=query.shape[2] // heads, masked=mask is not None)
    inputs = [query, key, value, gradient]
    return *_call(kernel, mask, inputs, [query, key, value], heads, interpret), None


_attend.defvjp(_forward, _backward)
