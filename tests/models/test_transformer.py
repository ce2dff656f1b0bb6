"""The blocks of a transformer: taps, biases, masks and attention weights; class tokens and maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mae_jax.engine.mesh import make_mesh
from mae_jax.methods import mae
from mae_jax.models import convnext, transformer, vit
from mae_jax.models.encoder import Encoder, pooled
from mae_jax.types import UserError
from tests.helpers.compiled import noise_like

SHAPE = dict(width=16, depth=2, heads=2, patch=4)
KEY = jax.random.key(0)


class Trunk(nn.Module):
    """Blocks alone."""

    remat: str = "none"

    @nn.compact
    def __call__(self, x, bias=None, mask=None, **options):
        """What `blocks` returns."""
        return transformer.blocks(
            x, depth=2, heads=2, remat=self.remat, bias=bias, mask=mask, **options
        )


@functools.cache
def inputs():
    return np.random.default_rng(0).normal(size=(2, 7, 16)).astype(np.float32)


@functools.cache
def variables():
    return noise_like(Trunk().init, KEY, inputs(), scale=0.2)


def run(*arrays, remat="none", **options):
    apply = functools.partial(Trunk(remat).apply, **options)
    return jax.device_get(jax.jit(apply)(variables(), inputs(), *arrays))


def test_parameters_are_those_of_the_callers_blocks():
    assert set(variables()["params"]) == {"block_0", "block_1"}


@pytest.mark.parametrize("remat", ["none", "full"])
def test_taps_are_outputs_of_blocks(remat):
    found = run(remat=remat, taps=(1, 0, -2), weighted=(1,))
    np.testing.assert_allclose(found.taps[0], found.last, atol=1e-6)
    x, block = inputs(), jax.jit(transformer.Block(heads=2).apply)
    for i, taps in ((0, found.taps[1:]), (1, found.taps[:1])):
        x, _ = block({"params": variables()["params"][f"block_{i}"]}, x)
        for tap in taps:
            np.testing.assert_allclose(tap, x, atol=1e-5)
    assert len(found.weights) == 1
    with pytest.raises(UserError, match="block 2 is not one of 2: choose 0 to 1, or -1"):
        jax.eval_shape(functools.partial(Trunk().apply, taps=(2,)), variables(), inputs())


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_a_bias_can_stand_for_a_mask_and_has_a_gradient(remat):
    valid = np.arange(7) < 5
    mask = np.broadcast_to(valid, (2, 1, 1, 7))
    bias = np.where(mask, 0, -1e9).astype(np.float32)
    masked, biased = run(None, mask, remat=remat).last, run(bias, remat=remat).last
    np.testing.assert_allclose(masked, biased, atol=1e-5)
    network = Trunk(remat)
    loss = lambda bias: (network.apply(variables(), inputs(), bias).last[:, 0] ** 3).sum()
    table = np.zeros((1, 2, 7, 7), np.float32)
    gradient = np.asarray(jax.jit(jax.grad(loss))(table))
    assert gradient.shape == table.shape and np.isfinite(gradient).all() and gradient.any()


def test_what_is_masked_does_not_count():
    valid = np.arange(7) < 5
    noise = np.where(valid[:, None], 0, 1).astype(np.float32)
    apply = lambda x, *mask: Trunk().apply(variables(), x, None, *mask).last[:, :5]
    every = jax.jit(lambda x, mask: (apply(x), apply(x, mask), apply(x + noise, mask)))
    plain, masked, other = every(inputs(), np.broadcast_to(valid, (2, 1, 1, 7)))
    np.testing.assert_allclose(other, masked, atol=1e-6)
    assert not np.allclose(masked, plain, atol=1e-3)


def test_a_row_without_a_valid_key_goes_through_blocks_of_any_kernel():
    """Bias and mask reach it, and give what they give elsewhere, with finite gradients."""
    rng = np.random.default_rng(2)
    bias, mask = rng.normal(size=(1, 2, 7, 7)).astype(np.float32), rng.random((2, 1, 1, 7)) < 0.7
    mask[1] = False

    def of(kind):
        apply = functools.partial(Trunk().apply, attention=kind)
        loss = lambda params, bias: (apply(params, inputs(), bias, mask).last ** 3).sum()
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(variables(), bias)

    found, expected = of("blockwise"), of("xla")
    assert expected[1][1].any()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max() + 1e-6)


def test_a_kernel_that_takes_no_bias_refuses_it():
    block = transformer.Block(heads=2, attention="pallas")
    bias = jnp.zeros((1, 2, 7, 7))
    chip = jax.sharding.AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    mesh = make_mesh(devices=jax.devices()[:1]).abstract_mesh.update(abstract_device=chip)
    with jax.sharding.use_abstract_mesh(mesh):
        jax.eval_shape(block.init, KEY, inputs())
        with pytest.raises(UserError, match="attention=pallas supports no bias; attention=auto"):
            jax.eval_shape(functools.partial(block.init, bias=bias), KEY, inputs())


def softmax_by_hand(params, x):
    """Weights of the first block in float64, [B, H, T, T]."""
    x = np.asarray(x, np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * params["norm1"]["scale"] + params["norm1"]["bias"]
    qkv = x @ params["attention"]["qkv"]["kernel"] + params["attention"]["qkv"]["bias"]
    q, k, _ = (y.reshape(*y.shape[:2], 2, 8) for y in np.split(qkv, 3, axis=-1))
    logits = np.exp(np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(8))
    return logits / logits.sum(axis=-1, keepdims=True)


def test_attention_weights_are_the_softmax():
    found = run(weighted=(0,)).weights[0]
    assert found.shape == (2, 2, 7, 7) and found.dtype == np.float32
    expected = softmax_by_hand(variables()["params"]["block_0"], inputs())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_attention_weights_of_masked_keys_are_zero():
    mask = np.ones((2, 1, 1, 7), bool)
    mask[0, ..., 3] = False
    mask[1] = False  # no valid key at all
    found = run(None, mask, weighted=(1,)).weights[0]
    assert not found[0, ..., 3].any() and not found[1].any() and np.isfinite(found).all()
    np.testing.assert_allclose(found[0].sum(axis=-1), 1, rtol=1e-5)


@functools.cache
def images(*shape):
    return np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)


def test_an_encoder_shows_its_maps_and_attention():
    network, x = vit.make(**SHAPE, class_tokens=2), images(8, 12, 3)
    params = noise_like(network.init, KEY, x)
    params["params"]["norm"] = dict(scale=np.ones(16), bias=np.zeros(16))

    @jax.jit
    def everything(params):
        apply = functools.partial(network.apply, params, x)
        maps, weights = apply(method="maps"), apply(method="attention_weights")
        return maps, weights, apply(), apply(method="maps", taps=(-1,))

    maps, weights, tokens, (alone,) = jax.device_get(everything(params))
    assert [y.shape for y in maps] == [(2, 2, 3, 16)] * 2
    assert [w.shape for w in weights] == [(2, 2, 8, 8)] * 2
    np.testing.assert_allclose(np.sum(weights[0], axis=-1), 1, rtol=1e-5)
    last = np.asarray(maps[1]).reshape(2, 6, 16)
    last = (last - last.mean(-1, keepdims=True)) / np.sqrt(last.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(tokens[:, 2:], last, atol=1e-4)
    np.testing.assert_allclose(alone, maps[1], atol=1e-6)


def test_attention_that_nobody_asks_for_is_not_computed():
    """It costs an exponential more for each block that is asked for."""
    network, x = vit.make(**SHAPE), images(8, 12, 3)
    params = jax.eval_shape(network.init, KEY, x)

    def exponentials(**options):
        compiled = jax.jit(functools.partial(network.apply, **options)).lower(params, x).compile()
        return compiled.cost_analysis()["transcendentals"]

    def asked(*taps):
        return exponentials(method="run", weighted=taps)

    assert exponentials() == asked() < asked(0) < asked(0, 1)


@pytest.mark.parametrize("rank", [1, 3])
def test_convolutional_maps_of_any_rank(rank):
    network = convnext.make(widths=(4, 8), depths=(1, 1), stem=2, kernel=3)
    x = images(*(8, 4, 4)[:rank], 2)
    params = jax.eval_shape(network.init, KEY, x)
    maps = jax.eval_shape(functools.partial(network.apply, method="maps"), params, x)
    assert [y.shape for y in maps] == [
        (2, *(4, 2, 2)[:rank], 4),
        (2, *(2, 1, 1)[:rank], 8),
    ]
    (coarse,) = jax.eval_shape(
        functools.partial(network.apply, method="maps", taps=(-1,)), params, x
    )
    assert coarse.shape == maps[1].shape


@pytest.mark.parametrize("count", [0, pytest.param(1, marks=pytest.mark.thorough), 3])
def test_any_number_of_class_tokens(count):
    """All are learned, have positions of their own, and pass through encoder and decoder."""
    encoder = f"vit(width=16, depth=1, heads=2, patch=4, class_tokens={count})"
    decoder = dict(decoder_width=8, decoder_depth=1, decoder_heads=2)
    method = mae.make(encoder=encoder, pool="mean" if count == 0 else "cls", **decoder)
    batch = {"image": np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)}
    params, _ = noise_like(method.init, KEY, batch)
    loss = lambda params: method.loss(params, {}, batch, KEY, 0).loss
    gradient = jax.jit(jax.grad(loss))(params)["encoder"]
    assert ("cls_token" in params["encoder"]) == (count > 0)
    if count:
        assert gradient["cls_token"].shape == (1, count, 16)
        assert np.abs(gradient["cls_token"]).max(axis=(0, 2)).min() > 0
    learned = vit.make(**SHAPE, class_tokens=count, learned_positions=True)
    table = jax.eval_shape(learned.init, KEY, images(8, 8, 3))["params"]["positions"]
    assert table.shape == (count + 4, 16)


def test_pooled():
    tokens = np.arange(10.0).reshape(1, 5, 2)
    cases = [("cls", 1), ("cls", 3), ("mean", 3), ("mean", 0)]
    found = jax.jit(lambda x: [pooled(x, name, prefix=n) for name, n in cases])(tokens)
    np.testing.assert_array_equal(found, [[[0, 1]], [[2, 3]], [[7, 8]], [[4, 5]]])


def test_an_encoder_that_cannot_be_compared_with_others_is_not_loaded():
    class Nameless(Encoder):
        pass

    with pytest.raises(UserError, match="kind Nameless are not loaded: define their"):
        str(Nameless().architecture)
