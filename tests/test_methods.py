"""The contract of methods, for every file in methods/ and tasks/: a new one is found and tested by
itself.
"""

import functools
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mae_jax.methods
import mae_jax.tasks
from mae_jax.engine.mesh import FSDP, infer_shardings, make_mesh, put_batch
from mae_jax.engine.optim import DECAY_MATRICES
from mae_jax.methods.conv_mae import ConvMaskedAutoencoding
from mae_jax.methods.rotation import Rotation
from mae_jax.rules import map_rules
from mae_jax.spec import resolve
from mae_jax.tasks.encode import Encoding
from mae_jax.types import UserError

METHODS = [
    f"{package.__name__.removeprefix('mae_jax.')}.{module.name}"
    for package in (mae_jax.methods, mae_jax.tasks)
    for module in pkgutil.iter_modules(package.__path__)
]
KEY = jax.random.key(0)
ENCODERS = {
    "vit": "vit(width=16, depth=1, heads=2, patch=4)",
    "conv": "conv(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)",
}
SMALL = dict(
    encoder=ENCODERS["vit"],
    decoder_width=8,
    decoder_depth=1,
    decoder_heads=2,
    classes=4,
    mixup=0.0,
    cutmix=0.0,
    drop_path=0.0,
    layer_decay=1.0,
    lr_factors=(3.0, 10.0),
    tile=4,
    latent=8,
    discriminator_width=8,
    permutations=4,
    projector=(32, 8),
    predictor=(32, 8),
    jitter=(0.1, 0.1, 0.0, 0.0),
    hidden=16,
    colors="keep",
    total_steps=30,
)


def make(name, **kwargs):
    """A small instance of a method: of SMALL it gets the arguments that it has."""
    function = resolve(name).make
    known = inspect.signature(function).parameters
    if "skips" in known and "conv" not in kwargs.get("encoder", ENCODERS["vit"]):
        kwargs["skips"] = False  # which need the maps of a convolutional encoder
    return function(**{k: v for k, v in (SMALL | kwargs).items() if k in known})


CASES = [(name, "vit") for name in METHODS] + [("methods.conv_mae", "conv")]
OTHERS = [(name, "conv") for name in METHODS if name != "methods.conv_mae"]
"""The convolutional encoder once more, which one method has shown."""


class Case:
    """A method with parameters, and what is compiled once for all of its tests."""

    def __init__(self, method, batch):
        self.method, self.batch = method, batch
        self.params, self.extra = jax.device_get(jax.jit(method.init)(KEY, batch))

    def loss(self, params, extra, batch, key, step):
        """Loss and the rest of the output, for `jax.grad`."""
        output = self.method.loss(params, extra, batch, key, step)
        return output.loss, (output.extra, output.metrics)

    @functools.cached_property
    def gradient(self):
        """Compiled: ((loss, (extra, metrics)), gradient)."""
        return jax.jit(jax.value_and_grad(self.loss, has_aux=True))

    @functools.cached_property
    def first(self):
        """Loss and gradient at the start."""
        (loss, _), gradient = self.gradient(self.params, self.extra, self.batch, KEY, 0)
        return jax.device_get((loss, gradient))

    @functools.cached_property
    def rules(self):
        """The factor of the learning rate of each leaf, None where it does not learn."""
        rules = map_rules(self.params, getattr(self.method, "rules", DECAY_MATRICES))
        return jax.tree.map(lambda rule: rule and rule[0], rules, is_leaf=is_rule)


def is_rule(x):
    """None and tuples are leaves."""
    return x is None or isinstance(x, tuple)


@pytest.fixture(
    scope="module",
    params=[*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in OTHERS)],
    ids="-".join,
)
def case(request):
    name, encoder = request.param
    method = make(name, encoder=ENCODERS[encoder])
    return Case(method, make_batch(16 if isinstance(method, Rotation) else 12))


@pytest.fixture(scope="module")
def mae():
    """The masked autoencoder as it is, without options."""
    return Case(make("methods.mae"), make_batch(12))


def make_batch(width):
    """Four images [16, width, 3] with large, plain areas, a second view of each, and labels."""
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (4, 2, width // 4, 3)).repeat(8, axis=1).repeat(4, axis=2)
    return {
        "image": smooth.astype(np.uint8),
        "image2": smooth[:, :, ::-1].astype(np.uint8),
        "label": np.arange(4, dtype=np.int32),
    }


@pytest.fixture
def learner(case):
    """Every method but the one that uses an encoder as it is."""
    if isinstance(case.method, Encoding):
        with pytest.raises(UserError, match="tasks.encode learns nothing"):
            case.method.loss({}, {}, {}, KEY, 0)
        pytest.skip("learns nothing")
    return case


def test_the_loss_falls_on_a_fixed_batch(learner):
    """Of two networks that work against each other, the discriminator's loss."""
    params, extra, losses = learner.params, learner.extra, []
    after = jax.jit(learner.method.after_update)
    for step in range(30):
        key = jax.random.fold_in(KEY, step)
        (loss, (extra, metrics)), gradient = learner.gradient(
            params, extra, learner.batch, key, step
        )
        params = jax.tree.map(descend, learner.rules, params, gradient, is_leaf=is_rule)
        extra = after(params, extra, step)
        losses.append(float(metrics.get("discriminator", loss)))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert all(np.shape(value) == () for value in metrics.values())


def descend(factor, leaf, gradient):
    """A leaf after a step of 3e-3, as Adam's steps are, in the direction of its gradient."""
    gradient = np.asarray(gradient)
    size = np.sqrt(np.mean(gradient**2)) + 1e-20
    return leaf if factor is None else np.asarray(leaf - 3e-3 * factor * gradient / size)


@pytest.mark.slow
def test_loss_and_gradient_do_not_depend_on_the_mesh(learner, request):
    """One device, against two that hold half of the batch and of each parameter."""
    if "conv" in request.node.name and not isinstance(learner.method, ConvMaskedAutoencoding):
        pytest.skip("how these networks are split, that method shows, and each with a ViT")
    mesh = make_mesh(fsdp=2)
    split = lambda tree: jax.tree.map(jax.device_put, tree, infer_shardings(tree, mesh, FSDP))
    (loss, _), gradient = learner.gradient(
        split(learner.params), split(learner.extra), put_batch(learner.batch, mesh), KEY, 0
    )
    alone, expected = learner.first
    np.testing.assert_allclose(loss, alone, rtol=2e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for (path, leaf), found in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(gradient)
    ):
        atol = 1e-4 * np.abs(leaf).max() + 1e-6 * largest
        np.testing.assert_allclose(found, leaf, rtol=0, atol=atol, err_msg=str(path))


def test_every_leaf_that_learns_receives_a_gradient(learner):
    _, gradient = learner.first
    heard = jax.tree.map(
        lambda factor, leaf: factor is None or bool(np.any(leaf)),
        learner.rules,
        gradient,
        is_leaf=is_rule,
    )
    silent = [path for path, yes in jax.tree_util.tree_leaves_with_path(heard) if not yes]
    assert not silent
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(learner.params))


def test_predictions_are_deterministic_features_of_each_image_alone(case):
    predict = jax.jit(lambda batch: case.method.predict(case.params, case.extra, batch))
    features = np.asarray(predict(case.batch)["features"])
    assert features.ndim == 2 and len(features) == 4 and features.dtype == jnp.float32
    np.testing.assert_array_equal(features, predict(case.batch)["features"])
    turned = {name: rows[::-1] for name, rows in case.batch.items()}
    np.testing.assert_allclose(predict(turned)["features"], features[::-1], rtol=1e-5, atol=1e-5)
    assert features.std(axis=0).max() > 1e-3, "features do not depend on the image"


@pytest.mark.parametrize(
    "options",
    [
        dict(mask="block"),
        dict(mask="grid", mask_ratio=0.5),
        dict(loss="l1", normalize_target=False),
        dict(score="all"),
        dict(mask_tokens_in_encoder=True),
        dict(dtype="bfloat16"),
        dict(mask_ratio=0.0, score="all"),
        dict(pool="mean"),
    ],
    ids=str,
)
def test_every_option_of_mae_changes_the_loss_or_the_features(mae, options):
    method = make("methods.mae", **options)
    params = mae.params
    if "mask_tokens_in_encoder" in options:  # whose parameters are others
        params, _ = jax.jit(method.init)(KEY, mae.batch)
    loss, features = loss_and_features(method, params, mae.batch)
    expected = mae_loss_and_features(mae)
    assert loss != expected[0] or not np.array_equal(features, expected[1])


@functools.cache
def mae_loss_and_features(mae):
    """Those without options."""
    return loss_and_features(mae.method, mae.params, mae.batch)


def loss_and_features(method, params, batch):
    """The loss, after a look at it and its gradients, and the features."""

    @jax.jit
    def everything(params):
        loss = lambda p: method.loss(p, {}, batch, jax.random.key(2), 0).loss
        return *jax.value_and_grad(loss)(params), method.predict(params, {}, batch)["features"]

    value, gradient, features = everything(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert value.dtype == jnp.float32
    return float(value), np.asarray(features)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_mae_takes_any_number_of_channels(channels):
    method = make("methods.mae")
    batch = {"image": jax.ShapeDtypeStruct((2, 8, 20, channels), jnp.uint8)}
    params, extra = jax.eval_shape(method.init, KEY, batch)
    pictures = jax.eval_shape(method.reconstruct, params, extra, batch, KEY)
    shapes = {picture.shape for name, picture in pictures.items() if name != "hidden"}
    assert shapes == {batch["image"].shape}


def test_reconstructions_show_what_they_say(mae):
    images = mae.batch["image"]
    shown = jax.device_get(
        jax.jit(mae.method.reconstruct)(mae.params, mae.extra, mae.batch, jax.random.key(1))
    )
    hidden = shown["hidden"].reshape(4, 4, 3).repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_array_equal(shown["original"], images)
    np.testing.assert_array_equal(shown["masked"][~hidden], images[~hidden])
    np.testing.assert_array_equal(shown["masked"][hidden], 128)
    np.testing.assert_array_equal(shown["pasted"][~hidden], images[~hidden])
    np.testing.assert_array_equal(shown["pasted"][hidden], shown["denormalized"][hidden])
    assert not np.array_equal(shown["raw"], shown["denormalized"])


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


def test_the_initialisation_is_the_papers():
    method = make("methods.mae", encoder="vit(width=64, depth=1, heads=2, patch=4)")
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
