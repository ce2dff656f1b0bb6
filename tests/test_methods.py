"""The contract of methods, for every file in methods/ and tasks/: a new one is found and tested by
itself.
"""

import inspect
import pkgutil
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mae_jax.methods
import mae_jax.tasks
from mae_jax.engine.mesh import FSDP, make_mesh, put_batch
from mae_jax.engine.optim import DECAY_MATRICES, make_optimizer
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.methods.conv_mae import ConvMaskedAutoencoding
from mae_jax.methods.rotation import Rotation
from mae_jax.spec import resolve
from mae_jax.tasks.encode import Encoding
from mae_jax.types import UserError

METHODS = [
    f"{package.__name__.removeprefix('mae_jax.')}.{module.name}"
    for package in (mae_jax.methods, mae_jax.tasks)
    for module in pkgutil.iter_modules(package.__path__)
]
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


@pytest.fixture(scope="module", params=[(m, e) for m in METHODS for e in ENCODERS], ids="-".join)
def method(request):
    name, encoder = request.param
    return make(name, encoder=ENCODERS[encoder])


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
def learner(method):
    """Every method but the one that uses an encoder as it is."""
    if isinstance(method, Encoding):
        with pytest.raises(UserError, match="tasks.encode learns nothing"):
            method.loss({}, {}, {}, jax.random.key(0), 0)
        pytest.skip("learns nothing")
    return method


@pytest.fixture
def batch(request):
    """Of 16 x 12 images, or of square ones for a method that turns them."""
    method = request.getfixturevalue("method") if "method" in request.fixturenames else None
    return make_batch(16 if isinstance(method, Rotation) else 12)


def trained(method, batch, mesh, steps):
    """Losses over the steps, and the last state. Of two networks that work against each other, the
    discriminator's loss.
    """
    rules = getattr(method, "rules", DECAY_MATRICES)
    tx = make_optimizer(schedule=lambda step: 3e-3, rules=rules)
    fresh, like = plan_state(mesh, method, tx, batch, seed=0, rules=FSDP)
    step, state, losses = make_train_step(mesh, like, method, tx, seed=0), fresh(), []
    placed = put_batch(batch, mesh)
    for _ in range(steps):
        state, metrics = step(state, placed)
        losses.append(float(metrics.get("discriminator", metrics["loss"])))
    return losses, state


def test_the_loss_falls_on_a_fixed_batch_and_does_not_depend_on_the_mesh(learner, batch, request):
    method = learner
    losses, _ = trained(method, batch, make_mesh(data=2), 30)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    if "conv" in request.node.name and not isinstance(method, ConvMaskedAutoencoding):
        return  # how these networks are split, that method shows, and each with a ViT
    split, _ = trained(method, batch, make_mesh(fsdp=2), 5)
    np.testing.assert_allclose(split, losses[:5], rtol=2e-4)


def test_every_leaf_that_learns_receives_a_gradient(learner, batch):
    method = learner
    rules = getattr(method, "rules", DECAY_MATRICES)
    learns = lambda name: next(rule for pattern, rule in rules if re.search(pattern, name))
    params, extra = jax.jit(method.init)(jax.random.key(0), batch)
    gradient = jax.jit(jax.grad(lambda p, key: method.loss(p, extra, batch, key, 0).loss))(
        params, jax.random.key(1)
    )
    silent = [
        name
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if learns(name := jax.tree_util.keystr(path, simple=True, separator="/")) is not None
        and not np.any(np.asarray(leaf))
    ]
    assert not silent
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_predictions_are_deterministic_features_of_each_image_alone(method, batch):
    params, extra = jax.jit(method.init)(jax.random.key(0), batch)
    predict = jax.jit(method.predict)
    features = predict(params, extra, batch)["features"]
    assert features.ndim == 2 and len(features) == 4 and features.dtype == jnp.float32
    np.testing.assert_array_equal(features, predict(params, extra, batch)["features"])
    turned = {name: rows[::-1] for name, rows in batch.items()}
    np.testing.assert_allclose(
        predict(params, extra, turned)["features"], features[::-1], rtol=1e-5, atol=1e-5
    )
    assert float(jnp.std(features, axis=0).max()) > 1e-3, "features do not depend on the image"


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
def test_every_option_of_mae_changes_the_loss_or_the_features(batch, options):
    (loss, features), (other_loss, other_features) = (
        loss_and_features(make("methods.mae"), batch),
        loss_and_features(make("methods.mae", **options), batch),
    )
    assert loss != other_loss or not np.array_equal(features, other_features)


def loss_and_features(method, batch):
    """The loss, after a look at it and its gradients, and the features."""
    params, extra = jax.jit(method.init)(jax.random.key(0), batch)
    loss = lambda p: method.loss(p, extra, batch, jax.random.key(2), 0).loss
    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert value.dtype == jnp.float32
    return float(value), np.asarray(jax.jit(method.predict)(params, extra, batch)["features"])


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_mae_takes_any_number_of_channels(channels):
    method = make("methods.mae")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 20, channels)).astype(np.uint8)
    params, extra = jax.jit(method.init)(jax.random.key(0), {"image": images})
    pictures = jax.jit(method.reconstruct)(params, extra, {"image": images}, jax.random.key(1))
    assert {p.shape for name, p in pictures.items() if name != "hidden"} == {images.shape}


def test_reconstructions_show_what_they_say(batch):
    method = make("methods.mae")
    params, extra = jax.jit(method.init)(jax.random.key(0), batch)
    shown = jax.jit(method.reconstruct)(params, extra, batch, jax.random.key(1))
    hidden = np.asarray(shown["hidden"]).reshape(4, 4, 3).repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_array_equal(shown["original"], batch["image"])
    np.testing.assert_array_equal(np.asarray(shown["masked"])[~hidden], batch["image"][~hidden])
    np.testing.assert_array_equal(np.asarray(shown["masked"])[hidden], 128)
    np.testing.assert_array_equal(np.asarray(shown["pasted"])[~hidden], batch["image"][~hidden])
    np.testing.assert_array_equal(
        np.asarray(shown["pasted"])[hidden], np.asarray(shown["denormalized"])[hidden]
    )
    assert not np.array_equal(shown["raw"], shown["denormalized"])


def test_hidden_pixels_do_not_reach_the_prediction(batch):
    method = make("methods.mae", normalize_target=False)
    params, _ = jax.jit(method.init)(jax.random.key(0), batch)
    images = method.normalize(jnp.asarray(batch["image"]))
    mask = method.draw_mask(jax.random.key(1), images)
    hidden = mask.mask.reshape(4, 4, 3).repeat(4, axis=1).repeat(4, axis=2)[..., None]
    noise = jax.random.normal(jax.random.key(2), images.shape)
    apply = jax.jit(lambda x: method.model.apply({"params": params}, x, mask))
    np.testing.assert_array_equal(apply(images), apply(jnp.where(hidden, noise, images)))
    assert not np.array_equal(apply(images), apply(jnp.where(hidden, images, noise)))


def test_the_initialisation_is_the_papers():
    method = make("methods.mae", encoder="vit(width=64, depth=1, heads=2, patch=4)")
    params, _ = jax.jit(method.init)(jax.random.key(0), {"image": np.zeros((1, 8, 8, 3), np.uint8)})
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
