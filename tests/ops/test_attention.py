"""Every kind of attention and its gradient against sums in float64, on one and two devices, with
bias and mask; what is chosen, and what is refused.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, NamedSharding
from jax.sharding import PartitionSpec as P

from mae_jax.engine.mesh import make_mesh, on_mesh
from mae_jax.ops.attention import KINDS, attention, check_attention, record_kinds, split
from mae_jax.ops.attention import blockwise as by_blocks
from mae_jax.ops.attention import pallas as by_pallas
from mae_jax.types import UserError

HEADS, SIZE = 4, 8


def example(scale=1.0, queries=5, keys=7, dtype=np.float32, batch=2):
    """Queries [B, T, 4, 8], keys and values [B, S, 4, 8], and a gradient like the queries."""
    rng = np.random.default_rng(0)
    shapes = [(batch, length, HEADS, SIZE) for length in (queries, keys, keys, queries)]
    q, k, v, g = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    return np.asarray(scale, dtype) * q, k, v, g


def exact(arrays):
    return [None if array is None else np.asarray(array, np.float64) for array in arrays]


def by_hand(query, key, value, bias=None, mask=None):
    """Every output vector by itself: the mean of the values, weighted by exp(q k / sqrt(d) + b)."""
    out, (batch, heads, length, count) = np.zeros(query.shape), shape_of(query, key)
    bias = np.broadcast_to(0 if bias is None else bias, (batch, heads, length, count))
    mask = np.broadcast_to(True if mask is None else mask, bias.shape)
    for b, h, t in np.ndindex(batch, heads, length):
        seen = np.flatnonzero(mask[b, h, t])
        if len(seen):
            logits = key[b, seen, h] @ query[b, t, h] / np.sqrt(SIZE) + bias[b, h, t, seen]
            weights = np.exp(logits - logits.max())
            out[b, t, h] = weights @ value[b, seen, h] / weights.sum()
    return out


def shape_of(query, key):
    return query.shape[0], query.shape[2], query.shape[1], key.shape[1]


def slopes(inputs, gradient, mask=None):
    """Central differences of sum(gradient * by_hand) by every number of the inputs."""
    arrays, weights = exact(inputs), np.asarray(gradient, np.float64)
    found = []
    for i, array in enumerate(arrays):
        expected = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            moved = []
            for step in (1e-5, -1e-5):
                changed = [x.copy() for x in arrays]
                changed[i][place] += step
                moved.append((by_hand(*changed, mask=mask) * weights).sum())
            expected[place] = (moved[0] - moved[1]) / 2e-5
        found.append(expected)
    return found


def analytic(query, key, value, gradient, bias=None, mask=None):
    """The gradients by query, key, value and the logits [B, H, T, S], in float64: dL/dlogits =
    p (g v^T - sum over keys of p g v^T).
    """
    q, k, v, g, bias = exact([query, key, value, gradient, bias])
    logits = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(SIZE) + (0 if bias is None else bias)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights = weights * (1 if mask is None else np.broadcast_to(mask, logits.shape))
    weights /= np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300)
    shares = np.einsum("bthd,bshd->bhts", g, v)
    d_logits = weights * (shares - (weights * shares).sum(axis=-1, keepdims=True))
    by_query = np.einsum("bhts,bshd->bthd", d_logits, k) / np.sqrt(SIZE)
    by_key = np.einsum("bhts,bthd->bshd", d_logits, q) / np.sqrt(SIZE)
    return by_query, by_key, np.einsum("bhts,bthd->bshd", weights, g), d_logits


def test_the_reference_has_the_slopes_of_finite_differences():
    *inputs, gradient = example(2.0, 2, 3, batch=1)
    mask = np.array([True, False, True])
    expected = slopes(inputs, gradient, mask)
    for found, slope in zip(analytic(*inputs, gradient, mask=mask), expected, strict=False):
        assert np.abs(slope).max() > 0.1
        np.testing.assert_allclose(found, slope, atol=1e-8)


@pytest.mark.parametrize("kind", ["xla", "blockwise"])
def test_values_may_have_fewer_channels_than_keys(kind):
    """As if the others were zeros."""
    query, key, value, gradient = example()
    value, gradient = (np.array(x) for x in (value, gradient))
    value[..., 3:] = gradient[..., 3:] = 0

    @jax.jit
    def run(gradient, *inputs):
        out, back = jax.vjp(functools.partial(attention, kind=kind), *inputs)
        return out, *back(gradient)

    found = run(gradient[..., :3], query, key, value[..., :3])
    expected = run(gradient, query, key, value)
    for one, full in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, full[..., : one.shape[-1]], atol=1e-5)
    np.testing.assert_allclose(found[0], expected[0][..., :3], atol=1e-6)


def kinds(bias=None):
    """The kinds that a CPU computes, in blocks of 3 keys and with the kernels interpreted."""
    found = dict(
        xla=KINDS["xla"].attend,
        blockwise=lambda *args: by_blocks.attend(*args, block=3),
        pallas=lambda *args: by_pallas.attend(*args, interpret=True),
    )
    return {k: v for k, v in found.items() if bias is None or k != "pallas"}


def compiled(attend, mesh):
    """(gradient, *inputs) -> the output and the gradients by the inputs, on a mesh."""

    @jax.jit
    @on_mesh(mesh)
    def value_and_gradient(gradient, *inputs):
        out, back = jax.vjp(attend, *inputs)
        return out, *back(gradient)

    return value_and_gradient


def masks():
    keys = np.random.default_rng(1).random((4, 1, 1, 7)) < 0.6
    keys[1] = False  # an example without any valid key
    some = np.random.default_rng(2).random((1, HEADS, 5, 7)) < 0.6
    some[0, 1, 2] = False
    return {"keys": keys, "some": some}


def biases():
    rng = np.random.default_rng(3)
    shapes = {"heads": (1, HEADS, 5, 7), "keys": (4, 1, 1, 7), "queries": (1, 1, 5, 1)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("devices", "bias", "mask"),
    [
        (1, "", ""),
        (1, "queries", "keys"),
        (2, "", "keys"),
        pytest.param(2, "heads", "", marks=pytest.mark.thorough),
        (2, "keys", "some"),
    ],
)
def test_every_kind_is_the_weighted_mean_of_the_values(devices, bias, mask, monkeypatch):
    """Also where a kernel has several programs, of two heads and of one image each."""
    monkeypatch.setattr(by_pallas, "LANES", 2 * SIZE)
    monkeypatch.setattr(by_pallas, "MOST_IMAGES", 1)
    *inputs, gradient = example(batch=4)
    bias, mask = biases().get(bias), masks().get(mask)
    expected = by_hand(*exact(inputs), bias, mask)
    *by_inputs, d_logits = analytic(*inputs, gradient, bias, mask)
    if bias is not None:  # summed over what was broadcast
        axes = tuple(i for i in range(4) if bias.shape[i] == 1 and d_logits.shape[i] > 1)
        by_inputs.append(d_logits.sum(axis=axes, keepdims=True))
    mesh = make_mesh(devices=jax.devices()[:devices])
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    for name, attend in kinds(bias).items():
        if name == "pallas" and mask is not None and mask.shape[1:3] != (1, 1):
            continue  # see the test of what is refused
        take = lambda q, k, v, *bias, attend=attend: attend(q, k, v, *(bias or (None,)), mask)
        placed = [jax.device_put(x, rows) for x in (gradient, *inputs)]
        more = [] if bias is None else [jnp.asarray(bias)]
        out, *found = compiled(take, mesh)(*placed, *more)
        np.testing.assert_allclose(out, expected, atol=2e-6, err_msg=name)
        for mine, theirs in zip(found, by_inputs, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=5e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["xla", "blockwise"])
def test_logits_of_a_few_hundred_do_not_overflow(kind):
    attend = compiled(functools.partial(attention, kind=kind), make_mesh(devices=jax.devices()[:1]))
    *inputs, gradient = example(100.0)
    expected = by_hand(*exact(inputs))
    np.testing.assert_allclose(attend(gradient, *inputs)[0], expected, rtol=1e-5, atol=2e-5)
    *inputs, _ = example(1e4)  # one key has all the weight
    assert all(np.isfinite(x).all() for x in attend(gradient, *inputs)[1:])


@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 5), (5, 1), pytest.param(1, 1, marks=pytest.mark.thorough)]
)
def test_one_query_or_key(queries, keys, monkeypatch):
    monkeypatch.setattr(by_pallas, "LANES", 2 * SIZE)
    *inputs, gradient = example(queries=queries, keys=keys)
    expected = by_hand(*exact(inputs)), *analytic(*inputs, gradient)[:3]
    mesh = make_mesh(devices=jax.devices()[:1])
    for name, attend in kinds().items():
        found = compiled(attend, mesh)(gradient, *inputs)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=5e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["xla", "blockwise", "pallas"])
def test_bfloat16_loses_what_its_products_lose_and_no_more(kind):
    """The softmax is float32: exponentials of bfloat16 logits of about 10 would be off by 4%."""
    *inputs, gradient = example(5.0, dtype=jnp.bfloat16)
    attend = compiled(kinds()[kind], make_mesh(devices=jax.devices()[:1]))
    found, *gradients = attend(gradient, *inputs)
    expected, wanted = by_hand(*exact(inputs)), analytic(*inputs, gradient)[:3]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(found), expected, atol=0.015)
    for mine, theirs in zip(gradients, wanted, strict=True):
        assert mine.dtype == jnp.bfloat16
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(np.float32(mine), theirs, atol=0.02 * scale)


def test_blocks_of_keys_need_memory_that_grows_with_the_tokens_and_not_their_square():
    """Temporaries of value and gradient, of the compiled program: no device computes it."""

    def temporaries(kind, tokens):
        x = jax.ShapeDtypeStruct((1, tokens, 2, 16), jnp.float32)
        total = lambda *args: attention(*args, kind=kind).sum()
        lowered = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2))).lower(x, x, x)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporaries("blockwise", 8000) < 2.2 * temporaries("blockwise", 4096)
    assert temporaries("blockwise", 8000) < temporaries("xla", 8000) / 10


def test_split_and_its_gradient():
    x = np.arange(24, dtype=np.float32).reshape(2, 12)

    @jax.jit
    def doubled(x):
        parts, backward = jax.vjp(lambda x: split(x, 3), x)
        return parts, backward([2 * part for part in parts])[0]

    parts, gradient = doubled(x)
    np.testing.assert_array_equal(parts[1], x[:, 4:8])
    np.testing.assert_array_equal(gradient, 2 * x)


def device(platform, kind="x", count=2):
    """A mesh of such devices, on which functions can be traced."""
    one = AbstractDevice(kind, None, platform)
    mesh = make_mesh(devices=jax.devices()[:count]).abstract_mesh.update(abstract_device=one)
    return jax.sharding.use_abstract_mesh(mesh)


def traced(queries=5, keys=None, dtype=jnp.bfloat16, size=32, batch=2, gradient=False, **options):
    """The kind that was taken, of [B, T, 4, d]."""
    q = jax.ShapeDtypeStruct((batch, queries, 4, size), dtype)
    k = jax.ShapeDtypeStruct((batch, keys or queries, 4, size), dtype)
    total = lambda *args: attention(*args, **options).astype(jnp.float32).sum()
    with record_kinds() as found:
        jax.eval_shape(jax.value_and_grad(total, (0, 1, 2)) if gradient else total, q, k, k)
    return next(iter(found)).split()[0]


@pytest.fixture
def cudnn(monkeypatch):
    """JAX asks for the version of cuDNN while it traces; there is none here."""
    from jax._src.cudnn import fused_attention_stablehlo as fused

    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)


H100 = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("queries", "keys"), [(50, 50), (65, 65), (147, 197), (197, 197), (257, 257)]
)
def test_cudnn_trains_with_any_number_of_tokens(queries, keys, cudnn):
    with device("gpu", H100):
        assert traced(queries, keys, kind="cudnn", gradient=True) == "cudnn"


def test_cudnn_takes_bias_and_mask_of_odd_sequences(cudnn):
    bias, mask = np.zeros((1, 4, 7, 9), np.float32), np.ones((2, 1, 1, 9), bool)
    with device("gpu", H100):
        assert traced(7, 9, kind="cudnn", gradient=True, bias=bias, mask=mask) == "cudnn"


@pytest.mark.parametrize(
    ("platform", "kind", "options", "expected"),
    [
        ("cpu", "cpu", {}, "xla"),
        ("cpu", "cpu", dict(queries=1024), "blockwise"),
        ("tpu", "TPU v5 lite", {}, "pallas"),
        ("tpu", "TPU v5 lite", dict(dtype=jnp.float32), "pallas"),
        ("tpu", "TPU v5 lite", dict(queries=513), "xla"),
        ("tpu", "TPU v5 lite", dict(batch=3), "xla"),
        ("tpu", "TPU v5 lite", dict(queries=512, size=520, dtype=jnp.float32), "xla"),
        ("tpu", "TPU v4", {}, "pallas"),
        ("tpu", "TPU v4", dict(queries=512, size=136, dtype=jnp.float32), "xla"),
        ("tpu", "TPU v5 lite", dict(queries=5, keys=2000), "blockwise"),
        ("tpu", "TPU v5 lite", dict(bias=np.zeros((1, 4, 5, 5), np.float32)), "xla"),
        ("gpu", H100, {}, "cudnn"),
        ("gpu", H100, dict(dtype=jnp.float32), "xla"),
        ("gpu", H100, dict(queries=4096), "cudnn"),
        ("gpu", "NVIDIA A100-SXM4-40GB", {}, "cudnn"),
        ("gpu", "NVIDIA RTX 6000 Ada Generation", {}, "cudnn"),
        ("gpu", "Tesla V100-SXM2-16GB", {}, "xla"),
        ("gpu", "Tesla T4", {}, "xla"),
        ("gpu", "NVIDIA GeForce RTX 2080 Ti", {}, "xla"),
        ("gpu", "Quadro RTX 6000", {}, "xla"),
        ("gpu", "NVIDIA RTX 4000 SFF Ada Generation", {}, "cudnn"),
        ("gpu", "NVIDIA RTX A2000", {}, "cudnn"),
        ("gpu", "NVIDIA T1000 8GB", {}, "xla"),
        ("gpu", "NVIDIA GeForce 940MX", {}, "xla"),
        ("gpu", "Quadro GV100", {}, "xla"),
        ("gpu", "AMD Instinct MI300X", {}, "xla"),
        ("tpu", "TPU v3", {}, "xla"),
    ],
)
def test_auto_takes_what_suits_the_mesh(platform, kind, options, expected, cudnn):
    with device(platform, kind):
        assert traced(**options) == expected


def test_auto_without_a_mesh_is_what_runs_everywhere():
    assert traced() == "xla" and traced(1024) == "blockwise"


@pytest.mark.parametrize(
    ("platform", "kind", "options", "message"),
    [
        (
            "cpu",
            "cudnn",
            {},
            "attention=cudnn needs an NVIDIA GPU, and this is a CPU; attention=auto ",
        ),
        ("gpu", "pallas", {}, "attention=pallas needs a TPU, and this is a GPU"),
        ("tpu", "pallas", dict(queries=513), "takes at most 512 tokens and these are 513"),
        (
            "tpu",
            "pallas",
            dict(bias=np.zeros((1, 4, 5, 5), np.float32)),
            "attention=pallas supports no bias",
        ),
        ("tpu", "pallas", dict(mask=np.ones((1, 1, 5, 5), bool)), "masks of keys only"),
        ("tpu", "pallas", dict(size=12), "needs heads of a multiple of 8 channels"),
        ("tpu", "pallas", dict(batch=3), "splits a batch over 2 devices, and this one has 3 rows"),
        (
            "cpu",
            "xla",
            dict(bias=np.zeros((4, 5, 5), np.float32)),
            r"bias of shape \[4, 5, 5\] does not fit",
        ),
        ("cpu", "xla", dict(mask=np.ones((2, 1, 1, 4), bool)), r"mask of shape \[2, 1, 1, 4\]"),
        ("gpu", "cudnn", dict(dtype=jnp.float32), "16 bits and not in float32: set dtype=bfloat16"),
    ],
)
def test_a_kind_that_cannot_compute_it_is_refused(platform, kind, options, message):
    with device(platform), pytest.raises(UserError, match=message):
        traced(kind=kind, **options)


def test_fused_kernels_need_to_know_the_devices():
    with pytest.raises(UserError, match=r"attention=pallas needs to know its devices.*set_mesh"):
        traced(kind="pallas")


@pytest.mark.parametrize(
    ("kind", "heads", "dtype", "message"),
    [
        ("cudn", 4, "bfloat16", "vit: attention 'cudn' is unknown: choose auto, xla, blockwise, "),
        ("cudnn", 4, "float32", "computes in 16 bits and not in float32: set dtype=bfloat16"),
        ("cudnn", 16, "bfloat16", "heads of 8, 16, ... 128 channels and these have 4"),
        ("pallas", 4, "float16", "in bfloat16 or float32 and not in float16"),
        ("cudnn", 1, "bfloat16", None),
        ("xla", 16, "float32", None),
    ],
)
def test_what_cannot_be_built_is_refused(kind, heads, dtype, message):
    check = lambda: check_attention("vit", kind, width=64, heads=heads, dtype=dtype)
    if message is None:
        return check()
    with pytest.raises(UserError, match=message):
        check()


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (5, 7)])
def test_cudnn_agrees(queries, keys):
    *inputs, _ = example(queries=queries, keys=keys, dtype=jnp.bfloat16)
    with jax.set_mesh(make_mesh(devices=jax.devices()[:1])):
        found, expected = (attention(*inputs, kind=kind) for kind in ("cudnn", "xla"))
    np.testing.assert_allclose(*(x.astype(jnp.float32) for x in (found, expected)), atol=0.03)
