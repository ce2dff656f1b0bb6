"""Hard patches mining: its loss, its teacher, and the masks that the teacher chooses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax import weights
from mae_jax.bench import flops
from mae_jax.methods import hpm, mae
from mae_jax.models.mae import MAE
from mae_jax.rules import path_of
from mae_jax.types import UserError
from mae_jax.weights import Model, export
from tests.helpers.tiny_args import make_tiny, tiny
from tests.test_methods import make_batch

KEY = jax.random.key(2)


def test_the_teacher_is_a_moving_average_with_a_rising_momentum():
    """Of encoder and loss predictor, from 0.9 to 0.99 in the first half of 30 steps."""
    rng = np.random.default_rng(0)
    arrays = lambda: {"kernel": rng.normal(size=(3, 4)).astype(np.float32)}
    parts = lambda *names: {name: arrays() for name in names}
    method, params = make_tiny("methods.hpm"), parts("encoder", "decoder", "predictor")
    momentum, other = parts("encoder", "predictor"), arrays()
    after = jax.jit(method.after_update)
    for step in (0, 6, 15, 29):
        share = min(step / 15, 1)
        m = 0.9 + share * (0.99 - 0.9)
        found = after(params, {"momentum": momentum, "target": other}, step)
        for name, old in momentum.items():
            new = params[name]["kernel"].astype(np.float64)
            expected = m * old["kernel"].astype(np.float64) + (1 - m) * new
            np.testing.assert_allclose(found["momentum"][name]["kernel"], expected, rtol=3e-6)
        assert found["momentum"].keys() == {"encoder", "predictor"}
        np.testing.assert_array_equal(found["target"]["kernel"], other["kernel"])
    loaded = method.after_load(params, {"momentum": momentum})
    assert loaded["momentum"] == {name: params[name] for name in momentum}


class Known(hpm.HardPatchesMining):
    """The method with predictions that are known: the number of the patch."""

    def predicted_losses(self, images, extra):
        """[B, 4, 3]."""
        return jnp.broadcast_to(jnp.arange(12.0).reshape(4, 3), (len(images), 4, 3))


def test_more_and_more_hard_patches_are_masked():
    """Of 9 masked ones none at the start, and 4 at the end; no patch is masked always otherwise."""
    method = make_tiny("methods.hpm")
    method = dataclasses.replace(Known(**vars(method)), total_steps=10)
    images = np.zeros((64, 16, 12, 3), np.uint8)
    draw = jax.jit(lambda step: method.draw_mask(KEY, images, step, {"momentum": {}}).mask)
    for step, count in ((0, 0), (5, 2), (10, 4)):
        mask = np.asarray(draw(step))
        assert (mask.sum(axis=1) == 9).all()
        always = mask.all(axis=0)
        np.testing.assert_array_equal(np.flatnonzero(always), np.arange(12 - count, 12))


def test_shapes_and_mistakes():
    method, batch = make_tiny("methods.hpm"), make_batch((16, 12, 3))
    params, extra = jax.eval_shape(method.init, KEY, batch)
    assert params.keys() == {"encoder", "decoder", "predictor"}
    assert params["predictor"]["predict"]["kernel"].shape == (8, 1)
    output = jax.eval_shape(method.loss, params, extra, batch, KEY, 3)
    assert output.metrics.keys() == {"reconstruction", "order", "ordered"}
    assert method.loads().keys() == {"params/encoder"} and method.pictures() is not None
    assert flops.count(method, (16, 12, 3)) is None, "that of mae would be wrong"
    args = tiny("methods.hpm").ARGS
    with pytest.raises(UserError, match=r"momentum=\(0.9,\): give two numbers in \[0, 1\]"):
        hpm.make(**args | dict(momentum=(0.9,)))
    with pytest.raises(UserError, match="predictor_depth=0 must be at least 1"):
        hpm.make(**args | dict(predictor_depth=0))


@pytest.mark.thorough
def test_the_loss_is_the_reconstruction_and_the_order_of_its_errors():
    """Against a masked autoencoder with the same parameters. The order changes encoder and loss
    predictor, not the decoder.
    """
    method, batch = make_tiny("methods.hpm"), make_batch((16, 12, 3))
    names = {"predictor_depth", "momentum"}
    args = {k: v for k, v in tiny("methods.hpm").ARGS.items() if k not in names}
    plain = mae.make(**args, mask="random")
    images = batch["image"]

    @jax.jit
    def everything(key):
        params, extra = method.init(key, batch)
        mask = method.draw_mask(key, images, 20, extra)
        loss = lambda params: method.loss(params, extra, batch, key, 20)
        gradient = jax.grad(lambda params: loss(params).loss)(params)
        errors = lambda params: plain.errors(
            plain.reconstruct_for_loss(params, images, mask), {}, images, mask
        )
        base = {name: params[name] for name in ("encoder", "decoder")}
        expected = jax.grad(lambda params: errors(params).mean())(base)
        variables = {"params": {"encoder": params["encoder"], "decoder": params["predictor"]}}
        network = MAE(method.encoder, method.predictor)
        predict = functools.partial(network.apply, variables, normalize=method.normalize, values=1)
        output = loss(params)
        return (
            (output.loss, output.metrics, errors(base), predict(images, mask), mask),
            (gradient, expected, predict(images, None), method.predicted_losses(images, extra)),
        )

    (loss, metrics, errors, predicted, mask), gradients = jax.device_get(everything(KEY))
    errors = errors.astype(np.float64).mean(axis=-1)  # [B, M]
    predicted = np.take_along_axis(predicted[..., 0].astype(np.float64), mask.masked, axis=1)
    larger = errors[:, :, None] > errors[:, None, :]
    differences = (predicted[:, :, None] - predicted[:, None, :])[larger]
    order = np.log1p(np.exp(-differences)).mean()
    np.testing.assert_allclose(metrics["reconstruction"], errors.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["order"], order, rtol=1e-5)
    np.testing.assert_allclose(metrics["ordered"], (differences > 0).mean(), rtol=1e-5)
    np.testing.assert_allclose(loss, errors.mean() + order, rtol=1e-5)
    gradient, expected, whole, guide = gradients
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, gradient["decoder"], expected["decoder"])
    kernel = lambda tree: tree["encoder"]["embed"]["kernel"]
    assert np.abs(kernel(gradient) - kernel(expected)).max() > 1e-5
    # The teacher, still equal, sees whole images; the hardest 3 of 9 (20 of 30 steps) are masked.
    np.testing.assert_allclose(guide.reshape(4, -1), whole[..., 0], rtol=1e-4, atol=1e-5)
    hardest = np.argsort(guide.reshape(4, -1), axis=1)[:, -3:]
    assert np.take_along_axis(mask.mask, hardest, axis=1).all()


def test_the_encoder_is_exported(tmp_path):
    """As that of a masked autoencoder; the loss predictor has no place in other layouts."""
    args = dict(tiny("methods.hpm").ARGS) | dict(mean=(0.5,), std=(0.3,), pool="cls")
    method, shape = hpm.make(**args), (16, 12, 3)
    params, _ = jax.eval_shape(method.init, KEY, method.example(shape))
    flat = jax.tree_util.tree_leaves_with_path(params)
    rng = np.random.default_rng(0)
    arrays = {path_of(path): rng.normal(size=x.shape).astype(np.float32) for path, x in flat}
    args |= dict(mask_ratio=0.75, target="pixels(normalize=True)")
    model = Model(arrays, "hpm", args, shape)
    export.write(model, tmp_path / "vit.safetensors", "timm", encoder_only=True)
    found = weights.read(str(tmp_path / "vit.safetensors"))[0].params
    assert {name for name in found if name.startswith("encoder/block")} == {
        name for name in arrays if name.startswith("encoder/block")
    }
    name = "encoder/block_0/mlp/fc1/kernel"
    np.testing.assert_array_equal(found[name], arrays[name])
    with pytest.raises(UserError, match="cannot hold predictor/.* of hpm: use --encoder-only"):
        export.write(model, tmp_path / "all.safetensors", "mae")
