"""The masked autoencoder: its options, its pictures, what it may see, and images of any rank."""

import dataclasses
import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.methods import mae as method_mae
from mae_jax.ops.patches import patchify
from mae_jax.targets import Target
from mae_jax.types import UserError
from tests.helpers.compiled import noise_like
from tests.helpers.tiny_args import make_tiny

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Basis(Target):
    """Coordinates in a basis that is learned from training images."""

    sample: ClassVar[int] = 4

    def width(self, patch, channels):
        """Two."""
        return 2

    def initial(self, images, patch):
        """[P, 2]."""
        return {"basis": jnp.zeros((math.prod(patch) * images.shape[-1], 2))}

    def constants(self, sample, patch):
        """[P, 2]."""
        pixels = np.asarray(patchify(jnp.asarray(sample["image"]), patch), np.float32)
        return {"basis": np.linalg.svd(pixels.reshape(-1, pixels.shape[-1]))[2][:2].T}

    def make(self, constants, images, context):
        """[B, K, 2]."""
        patches = context.take(patchify(images, context.patch))
        return context.normalize(patches, pixels=math.prod(context.patch)) @ constants["basis"]


class Case:
    """The method as it is, with parameters and a batch."""

    def __init__(self):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (4, 2, 3, 3)).repeat(8, axis=1).repeat(4, axis=2)
        self.method, self.batch = make_tiny("methods.mae"), {"image": images.astype(np.uint8)}
        self.params, self.extra = noise_like(self.method.init, KEY, self.batch)


@pytest.fixture(scope="module")
def mae():
    """The masked autoencoder without options."""
    return Case()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(dict(mask="block"), marks=pytest.mark.thorough),
        pytest.param(dict(mask="grid", mask_ratio=0.5), marks=pytest.mark.thorough),
        dict(loss="l1", target="pixels(normalize=False)"),
        pytest.param(dict(loss_on="all"), marks=pytest.mark.thorough),
        dict(mask_tokens_in_encoder=True),
        dict(dtype="bfloat16"),
        pytest.param(dict(mask_ratio=0.0, loss_on="all"), marks=pytest.mark.thorough),
        dict(pool="mean"),
    ],
    ids=str,
)
def test_every_option_of_mae_changes_the_loss_or_the_features(mae, options):
    method = make_tiny("methods.mae", **options)
    params = mae.params
    if "mask_tokens_in_encoder" in options:  # whose parameters are others
        params, _ = noise_like(method.init, KEY, mae.batch)
    loss, features = loss_and_features(method, params, mae.batch, gradient=options not in ALIKE)
    expected = mae_loss_and_features(mae)
    assert loss != expected[0] or not np.array_equal(features, expected[1])


def test_every_option_of_a_mask_changes_it(mae):
    one, many = (make_tiny("methods.mae", mask=mask) for mask in ("block(blocks=1)", "block"))
    draw = lambda images: [method.draw_mask(KEY, images).mask for method in (one, many)]
    assert not np.array_equal(*jax.jit(draw)(mae.batch["image"]))


ALIKE = [dict(mask="grid", mask_ratio=0.5), dict(loss_on="all"), dict(pool="mean")]
"""Options with which gradients are computed as without or as with others."""


@functools.cache
def mae_loss_and_features(mae):
    """Those without options."""
    return loss_and_features(mae.method, mae.params, mae.batch)


def loss_and_features(method, params, batch, gradient=True):
    """The loss, after a look at it and its gradients, and the features."""

    @jax.jit
    def everything(params):
        loss = lambda p: method.loss(p, {}, batch, jax.random.key(2), 0).loss
        value, slopes = jax.value_and_grad(loss)(params) if gradient else (loss(params), {})
        return value, slopes, method.predict(params, {}, batch, outputs=("features",))["features"]

    value, slopes, features = jax.device_get(everything(params))
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(slopes))
    assert value.dtype == jnp.float32
    return float(value), features


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_mae_takes_any_number_of_channels(channels):
    method = make_tiny("methods.mae")
    batch = {"image": jax.ShapeDtypeStruct((2, 8, 20, channels), jnp.uint8)}
    params, extra = jax.eval_shape(method.init, KEY, batch)
    pictures = jax.eval_shape(method.pictures(), params, extra, batch, key=KEY)
    assert {picture.shape for picture in pictures.values()} == {batch["image"].shape}


def test_reconstructions_show_what_they_say(mae):
    images = mae.batch["image"]
    key = jax.random.key(1)
    names = []  # in their order, which jit does not keep

    @jax.jit
    def everything(params, key):
        mask = mae.method.draw_mask(key, images)
        shown = mae.method.pictures()(params, {}, mae.batch, key=key)
        names.extend(shown)
        return mask, shown

    mask, shown = jax.device_get(everything(mae.params, key))
    given = jax.jit(mae.method.pictures())(mae.params, {}, mae.batch, mask=mask)
    jax.tree.map(np.testing.assert_array_equal, given, shown)
    hidden = mask.mask.reshape(4, 4, 3).repeat(4, axis=1).repeat(4, axis=2)
    original, masked, raw, denormalized, pasted = (shown[name] for name in names)
    np.testing.assert_array_equal(original, images)
    np.testing.assert_array_equal(masked[~hidden], images[~hidden])
    np.testing.assert_array_equal(masked[hidden], 128)
    np.testing.assert_array_equal(pasted[~hidden], images[~hidden])
    np.testing.assert_array_equal(pasted[hidden], denormalized[hidden])
    assert not np.array_equal(raw, denormalized)


def test_hidden_pixels_do_not_reach_the_prediction(mae):
    images = np.random.default_rng(0).normal(size=(4, 16, 12, 3)).astype(np.float32)
    noise = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)

    @jax.jit
    def apply(images, noise, hide):
        """The prediction where noise replaces what is hidden, or else what is seen."""
        mask = mae.method.draw_mask(jax.random.key(1), images)
        hidden = mask.mask.reshape(4, 4, 3).repeat(4, axis=1).repeat(4, axis=2)[..., None]
        mixed = jnp.where(hidden == hide, noise, images)
        return mae.method.model.apply({"params": mae.params}, mixed, mask)

    expected = apply(images, images, True)
    np.testing.assert_array_equal(apply(images, noise, True), expected)
    assert not np.array_equal(apply(images, noise, False), expected)


def test_the_initialization_is_the_papers():
    method = make_tiny("methods.mae", encoder="vit(width=64, depth=1, heads=2, patch=4)")
    batch = {"image": np.zeros((1, 8, 8, 3), np.uint8)}
    params = jax.device_get(jax.jit(method.init)(KEY, batch)[0])
    encoder = params["encoder"]
    bound = np.sqrt(6 / (4 * 64))  # Xavier uniform of a fused [D, 3D] kernel
    qkv = np.abs(encoder["block_0"]["attention"]["qkv"]["kernel"])
    assert 0.99 * bound < qkv.max() <= bound
    embed = np.abs(encoder["embed"]["kernel"])
    assert 0.98 * np.sqrt(6 / (48 + 64)) < embed.max() <= np.sqrt(6 / (48 + 64))
    tokens = np.concatenate([encoder["cls_token"].ravel(), params["decoder"]["mask_token"].ravel()])
    assert 0.013 < tokens.std() < 0.027
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key == "bias":
            assert not np.any(leaf)


def test_a_target_that_learns_constants(mae):
    method = dataclasses.replace(mae.method, target=Basis())
    params, extra = noise_like(method.init, KEY, mae.batch)
    constants = method.constants(mae.batch)
    assert jax.tree.map(np.shape, constants) == jax.tree.map(np.shape, extra)
    assert method.sample == 4 and mae.method.sample == 0 and mae.extra == {}
    assert method.pictures() is None, "no pixels"
    assert params["decoder"]["predict"]["kernel"].shape[-1] == 2
    loss = jax.jit(lambda extra: method.loss(params, extra, mae.batch, KEY, 0))
    found, start = loss(constants), loss(extra)
    assert np.isfinite(found.loss) and found.loss != start.loss
    np.testing.assert_array_equal(found.extra["target"]["basis"], constants["target"]["basis"])


RANKS = {
    "signal": ((24, 2), 4, dict(mask="block", mask_ratio=0.5)),
    "image": ((8, 12, 3), 4, dict(mask="grid", encoder_more=", class_tokens=0", pool="mean")),
    "volume": ((4, 8, 6, 1), (2, 4, 3), dict(encoder_more=", class_tokens=3")),
}
"""Shape of one image, patch, and options."""


def of_rank(name):
    """(method, batch)."""
    shape, patch, options = RANKS[name]
    options = dict(options)
    more = options.pop("encoder_more", "")
    encoder = f"vit(width=16, depth=1, heads=2, patch={patch}{more})"
    decoder = dict(decoder_width=16, decoder_depth=1, decoder_heads=2)
    images = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.uint8)
    return method_mae.make(encoder=encoder, **decoder, **options), {"image": images}


def descend(leaf, gradient):
    """A leaf after a step of 1e-2 in the direction of its gradient."""
    return leaf - 1e-2 * gradient / (jnp.sqrt(jnp.mean(gradient**2)) + 1e-8)


@pytest.mark.parametrize(
    "name", ["signal", pytest.param("image", marks=pytest.mark.thorough), "volume"]
)
def test_signals_images_and_volumes_are_learned_by_the_same_code(name):
    method, batch = of_rank(name)
    params, extra = noise_like(method.init, KEY, batch)
    loss = lambda params, key: method.loss(params, extra, batch, key, 0).loss

    @jax.jit
    def step(params, key):
        value, gradient = jax.value_and_grad(loss)(params, key)
        return value, jax.tree.map(descend, params, gradient)

    losses = []
    for i in range(30):
        value, params = step(params, jax.random.fold_in(KEY, i))
        losses.append(float(value))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    found = jax.jit(lambda p: method.predict(p, extra, batch, outputs=("features", "tokens")))(
        params
    )
    length = jax.eval_shape(method.draw_mask, KEY, batch["image"]).mask.shape[1]
    assert found["tokens"].shape == (4, method.encoder.prefix + length, 16)
    assert found["features"].shape == (4, 16)
    part = np.asarray(found["tokens"])[:, : method.encoder.prefix]
    if method.pool == "mean":
        part = np.asarray(found["tokens"])[:, method.encoder.prefix :]
    np.testing.assert_allclose(found["features"], part.mean(axis=1), rtol=1e-5, atol=1e-6)
    pictures = jax.eval_shape(method.pictures(), params, extra, batch)
    assert {picture.shape for picture in pictures.values()} == {batch["image"].shape}


def test_weights_of_images_of_another_rank_are_refused():
    """A kernel of 4 x 4 x 3 would pass for one of 4 x 12."""
    method, _ = of_rank("signal")
    with pytest.raises(UserError, match=r"of 2 dimensions, \[8, 12, 3\], and these have 1, \[24"):
        method.adapt((24, 2), (8, 12, 3))
    kernel = np.arange(8.0)[:, None]
    np.testing.assert_array_equal(method.adapt((48, 2), (24, 2))("embed/kernel", kernel), kernel)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mask="blocks"), "masks has no 'blocks': did you mean 'block'"),
        (dict(mask="block(4, 2)"), "too many positional arguments"),
        (dict(target="pixel"), "targets has no 'pixel': did you mean 'pixels'"),
        (
            dict(target="pixels(normalice=False)"),
            "there is no 'normalice': did you mean 'normalize",
        ),
        (dict(loss="l2"), "loss 'l2' is unknown: choose mse, l1"),
        (dict(loss_on="most"), "loss_on 'most' is unknown: choose masked, all"),
        (dict(mask_ratio=0), "mask_ratio 0 masks nothing to learn from"),
        (dict(mask_ratio=1.0), r"mask_ratio 1.0 is outside \[0, 1\)"),
        (
            dict(encoder="vit(Ti, class_tokens=0)"),
            "pool='cls' needs a class token, and vit.*class_tokens=0.* has none: set pool='mean'",
        ),
        (dict(encoder="vit(Ti, patch=(4, 0))"), r"vit: patch=\(4, 0\) .* must be positive"),
        (dict(encoder="vit(Ti, class_tokens=-1)"), "class_tokens=-1 must be 0 or more"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError, match=message):
        method_mae.make(**options)
