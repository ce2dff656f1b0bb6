"""Variational and adversarial learning: losses and gradients against formulas written down again
here, in float64 numpy where no gradient is needed.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mae_jax.engine.optim import make_optimizer
from mae_jax.methods import bigan, vae
from mae_jax.methods.bigan import LOSSES
from mae_jax.methods.vae import Normal
from mae_jax.models.discriminator import Discriminator
from mae_jax.models.unet_decoder import Generator
from mae_jax.types import UserError
from tests.helpers.compiled import compiled, noise_like

SMALL = dict(
    encoder="vit(width=16, depth=1, heads=2, patch=4)",
    latent=5,
    decoder_width=8,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.25),
)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def batch():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 12, 3))
    return {"image": images.astype(np.uint8)}


@functools.cache
def make_bigan(**kwargs):
    return bigan.make(**(SMALL | dict(discriminator_width=8) | kwargs))


@functools.cache
def make_vae(**kwargs):
    return vae.make(**(SMALL | dict(beta=2.5) | kwargs))


def started(method, batch):
    """Parameters with noise on every one, so that biases and scales count."""
    return noise_like(method.init, jax.random.key(0), batch, scale=0.15)[0]


def network_inputs(batch):
    """Normalized images, float64."""
    return (batch["image"] / 255 - np.array(SMALL["mean"])) / np.array(SMALL["std"])


def bytes_of(images):
    """The uint8 picture of normalized images."""
    values = np.asarray(images, np.float64) * np.array(SMALL["std"]) + np.array(SMALL["mean"])
    return np.clip(np.round(255 * values), 0, 255)


def same_pictures(found, expected):
    """Equal but for values that float32 rounds to the other side."""
    assert found.dtype == np.uint8
    assert np.abs(np.asarray(found, np.float64) - expected).max() <= 1
    assert (np.asarray(found) != expected).mean() < 0.02


# Variational autoencoding


@functools.partial(jax.jit, static_argnums=0)
def posterior_of(method, params, images):
    """Of normalized images."""
    return method.posterior(params, method.features(params, images))


def test_the_bound_against_numpy(batch):
    method = make_vae()
    params = started(method, batch)
    images = network_inputs(batch)
    posterior = posterior_of(method, params, jnp.asarray(images, jnp.float32))
    mean, log_variance = (np.asarray(x, np.float64) for x in posterior)
    noise = np.asarray(jax.random.normal(KEY, mean.shape), np.float64)
    latents = mean + np.sqrt(np.exp(log_variance)) * noise
    made = compiled(Generator(8, (8, 12), 3), "apply")({"params": params["generator"]}, latents)
    # -log N(x; made, 1), without the constant log(2 pi) / 2, summed over the values of an image
    error = np.mean([0.5 * np.sum((x - m) ** 2) for x, m in zip(images, made, strict=True)])
    sigma = np.exp(log_variance / 2)
    kl = np.mean(np.sum(-np.log(sigma) + (sigma**2 + mean**2) / 2 - 0.5, axis=1))
    found = compiled(method, "loss")(params, {}, batch, KEY, 0)
    np.testing.assert_allclose(found.metrics["reconstruction"], error, rtol=1e-5)
    np.testing.assert_allclose(found.metrics["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(found.loss, (error + 2.5 * kl) / (8 * 12 * 3), rtol=1e-5)
    assert kl > 0.5 and found.loss.dtype == jnp.float32


def test_the_divergence_is_the_integral():
    mean = np.array([[0.0, 1.5, -0.3], [2.0, -1.0, 0.0]])
    log_variance = np.array([[0.0, 0.7, -2.0], [1.0, 0.0, -3.0]])
    x = np.linspace(-30, 30, 60_001)[:, None, None]
    log_q = -0.5 * ((x - mean) ** 2 / np.exp(log_variance) + log_variance + np.log(2 * np.pi))
    log_p = -0.5 * (x**2 + np.log(2 * np.pi))
    integral = np.trapezoid(np.exp(log_q) * (log_q - log_p), dx=1e-3, axis=0).sum(axis=1)
    divergence = jax.jit(lambda *args: Normal(*args).divergence())
    np.testing.assert_allclose(divergence(mean, log_variance), integral, rtol=1e-5)
    assert not divergence(np.zeros((2, 3)), np.zeros((2, 3))).any()


def test_samples_have_the_mean_and_the_variance_and_pass_gradients_on():
    normal = Normal(np.float32([[1.0, -2.0]]), np.log(np.float32([[4.0, 0.25]])))

    @jax.jit
    def sampled(normal):
        draws = jax.vmap(normal.sample)(jax.random.split(KEY, 20_000))[:, 0]
        gradient = jax.grad(lambda n: n.sample(KEY).sum())(normal)
        return draws, gradient, jax.random.normal(KEY, (1, 2))

    draws, gradient, noise = jax.device_get(sampled(normal))
    np.testing.assert_allclose(draws.mean(axis=0), [1, -2], atol=5 * 2 / np.sqrt(20_000))
    np.testing.assert_allclose(draws.std(axis=0), [2, 0.5], rtol=0.03)
    np.testing.assert_allclose(gradient.mean, 1)
    np.testing.assert_allclose(gradient.log_variance, 0.5 * np.array([2, 0.5]) * noise, rtol=1e-5)


def test_the_loss_depends_on_the_key_and_the_features_do_not(batch):
    method = make_vae()
    params = started(method, batch)
    loss = lambda key: compiled(method, "loss")(params, {}, batch, key, 0)
    first, again, other = loss(KEY), loss(KEY), loss(jax.random.key(8))
    assert first.loss == again.loss != other.loss
    assert first.metrics["kl"] == other.metrics["kl"]
    features = compiled(method, "predict", outputs=("features",))(params, {}, batch)["features"]
    posterior = posterior_of(method, params, np.float32(network_inputs(batch)))
    np.testing.assert_allclose(features, posterior.mean, rtol=1e-5, atol=1e-6)
    assert features.shape == (4, 5)


@pytest.mark.parametrize(("bias", "bound"), [(1000.0, 10.0), (-1000.0, -10.0)])
def test_extreme_log_variances_are_clipped(batch, bias, bound):
    method = make_vae()
    params = started(method, batch)
    params["posterior"]["bias"] = np.repeat([0, bias], 5).astype(np.float32)
    images = jnp.asarray(network_inputs(batch), jnp.float32)
    posterior = posterior_of(method, params, images)
    np.testing.assert_array_equal(posterior.log_variance, bound)
    assert np.abs(posterior.mean).max() < 10
    assert np.isfinite(compiled(method, "loss")(params, {}, batch, KEY, 0).loss)


# Bidirectional adversarial learning


def logits_of(method, params, batch, encoder_params=None, discriminator_params=None):
    """Those of the real and of the made pairs, put together again from the networks."""
    ours = encoder_params or params
    images = jnp.asarray(network_inputs(batch), jnp.float32)
    features = compiled(method.encoder, "apply")({"params": ours["encoder"]}, images)[:, 0]
    encoded = features @ ours["latent"]["kernel"] + ours["latent"]["bias"]
    drawn = jax.random.normal(KEY, (4, 5))
    made = compiled(Generator(8, (8, 12), 3), "apply")({"params": ours["generator"]}, drawn)
    judge = lambda x, z: compiled(Discriminator(8), "apply")(
        {"params": discriminator_params or params["discriminator"]}, x, z
    )
    return judge(images, encoded), judge(made, drawn)


def norm(tree):
    """Of all leaves together, by numpy: eager operations compile one by one."""
    return np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))


def written_again(kind, real, fake):
    """Losses of the discriminator, and of encoder and generator, by numpy or jax."""
    np_ = jnp if isinstance(real, jax.Array) else np
    if kind == "hinge":
        zero = np_.zeros_like(real)
        discriminator = np_.maximum(zero, 1 - real) + np_.maximum(zero, 1 + fake)
        return np_.mean(discriminator), np_.mean(real) - np_.mean(fake)
    # -log of the probability of the label: 1 / (1 + exp(-logit)) that a pair is real
    real_is_real, real_is_fake = np_.logaddexp(0, -real), np_.logaddexp(0, real)
    fake_is_real, fake_is_fake = np_.logaddexp(0, -fake), np_.logaddexp(0, fake)
    return np_.mean(real_is_real + fake_is_fake), np_.mean(real_is_fake + fake_is_real)


@pytest.mark.parametrize("kind", ["nonsaturating", "hinge"])
def test_losses_of_logits_against_numpy(kind):
    real, fake = np.random.default_rng(0).normal(size=(2, 50)) * 3
    real[:4], fake[:4] = [60, -60, 0, 1.5], [-60, 60, 1e-3, -1.5]
    expected = written_again(kind, real, fake)
    every = jax.jit(lambda *logits: [f(*logits) for f in LOSSES[kind]])
    found = every(np.float32(real), np.float32(fake))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["hinge", pytest.param("nonsaturating", marks=pytest.mark.thorough)]
)
def test_each_network_gets_the_gradient_of_its_own_loss(batch, kind):
    method = make_bigan(loss=kind)
    params = started(method, batch)
    others = {name: tree for name, tree in params.items() if name != "discriminator"}
    losses = lambda *args: written_again(kind, *logits_of(method, params, batch, *args))
    expected = jax.jit(jax.grad(lambda p: losses(p, None)[1]))(others)
    expected["discriminator"] = jax.jit(jax.grad(lambda p: losses(None, p)[0]))(
        params["discriminator"]
    )
    (loss, metrics), found = jax.jit(
        jax.value_and_grad(
            lambda p: (lambda o: (o.loss, o.metrics))(method.loss(p, {}, batch, KEY, 0)),
            has_aux=True,
        )
    )(params)
    found, expected = jax.device_get((found, expected))
    assert found.keys() == expected.keys()
    for name in expected:
        size = norm(expected[name])
        assert size > 1e-3
        apart = norm(jax.tree.map(np.subtract, found[name], expected[name]))
        assert apart < 1e-5 * size, name
    logits = jax.jit(lambda params: logits_of(method, params, batch))(params)
    logits = [np.asarray(x, np.float64) for x in logits]
    of_discriminator, of_others = written_again(kind, *logits)
    np.testing.assert_allclose(metrics["discriminator"], of_discriminator, rtol=1e-5)
    np.testing.assert_allclose(metrics["generator"], of_others, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, of_discriminator + of_others, rtol=1e-5, atol=1e-6)
    right = np.concatenate([logits[0] > 0, logits[1] < 0]).mean()
    np.testing.assert_allclose(metrics["discriminator_accuracy"], right)


def descend(method, params, batch, rules, steps):
    """Metrics of the steps of AdamW, and the last parameters."""
    tx = make_optimizer(schedule=lambda step: 3e-3, rules=rules)
    state, history = jax.jit(tx.init)(params), []

    @jax.jit
    def step(params, state, i):
        loss = lambda p: (lambda o: (o.loss, o.metrics))(
            method.loss(p, {}, batch, jax.random.fold_in(KEY, i), i)
        )
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params, step=i)
        return optax.apply_updates(params, updates), state, metrics

    for i in range(steps):
        params, state, metrics = step(params, state, i)
        history.append(jax.device_get(metrics))
    return history, jax.device_get(params)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "frozen"),
    [
        pytest.param("nonsaturating", "discriminator", marks=pytest.mark.thorough),
        ("hinge", "discriminator"),
        pytest.param("nonsaturating", "encoder|latent|generator", marks=pytest.mark.thorough),
    ],
)
def test_each_side_wins_against_one_that_stands_still(batch, kind, frozen):
    method = make_bigan(loss=kind)
    params = started(method, batch)
    rules = ((rf"^({frozen})/", None), *method.rules())
    history, after = descend(method, params, batch, rules, 30)
    learner = "generator" if frozen == "discriminator" else "discriminator"
    losses = [metrics[learner] for metrics in history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1
    for name in params:
        moved = norm(jax.tree.map(np.subtract, after[name], params[name])) > 0
        assert moved != bool(re.fullmatch(frozen, name))


def test_the_discriminator_has_a_learning_rate_of_its_own_and_vectors_do_not_decay(batch):
    method = make_bigan(discriminator_lr=0.25)
    params = started(method, batch)
    tx = make_optimizer(schedule=lambda step: 0.1, rules=method.rules(), weight_decay=0.5)
    silent = jax.tree.map(np.zeros_like, params)
    update = jax.jit(lambda silent, params: tx.update(silent, tx.init(params), params, step=0))
    decayed, _ = jax.device_get(update(silent, params))
    for path, update in jax.tree_util.tree_leaves_with_path(decayed):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        leaf = params
        for part in path:
            leaf = leaf[part.key]
        factor = 0.25 if name.startswith("discriminator/") else 1.0
        decays = not name.endswith(("bias", "scale"))
        np.testing.assert_allclose(update, -0.1 * 0.5 * factor * decays * leaf, rtol=1e-5)


def test_the_features_are_those_in_front_of_the_latents(batch):
    method = make_bigan(pool="mean")
    params = started(method, batch)
    images = jnp.asarray(network_inputs(batch), jnp.float32)
    tokens = compiled(method.encoder, "apply")({"params": params["encoder"]}, images)
    features = compiled(method, "predict", outputs=("features",))(params, {}, batch)["features"]
    np.testing.assert_allclose(features, tokens[:, 1:].mean(axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "convolutions", "flat"),
    [((16, 12), 2, 4 * 3 * 16), ((32, 32), 3, 4 * 4 * 32), ((224, 224), 6, 4 * 4 * 64)],
)
def test_a_discriminator_looks_at_a_few_sites(size, convolutions, flat):
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, *size, 3), (2, 5))]
    model = Discriminator(8)
    out, variables = jax.eval_shape(
        lambda *pair: model.init_with_output(jax.random.key(0), *pair), *shapes
    )
    params = variables["params"]
    assert out.shape == (2,)
    assert sum(name.startswith("down") for name in params) == convolutions
    assert params["image"]["kernel"].shape == (flat, flat // 16 if convolutions > 2 else 16)


def test_a_discriminator_judges_each_pair_alone_and_all_of_it():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 16, 12, 3)) * np.arange(1.0, 4)[:, None, None, None]
    latents = rng.normal(size=(3, 5))
    model = Discriminator(8)
    variables = noise_like(model.init, KEY, *map(np.float32, (images, latents)))
    judge = jax.jit(lambda *pair: model.apply(variables, *pair))
    together = np.asarray(judge(images, latents))
    alone = [np.asarray(judge(images[i : i + 1], latents[i : i + 1]))[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    for other in (judge(images[::-1], latents), judge(images, latents[::-1])):
        assert np.abs(np.asarray(other) - together)[[0, 2]].min() > 1e-4


# Both


@pytest.mark.parametrize("make", [make_vae, make_bigan], ids=["vae", "bigan"])
def test_pictures_show_what_they_say(batch, make):
    method = make()
    params = started(method, batch)
    draw = jax.jit(method.pictures())
    shown, other = (draw(params, {}, batch, key=key) for key in (KEY, jax.random.key(8)))
    shown["sample"], other["sample"] = (x.pop("samples from the prior") for x in (shown, other))
    assert shown.keys() == {"original", "reconstruction", "sample"}
    np.testing.assert_array_equal(shown["original"], batch["image"])
    predict = compiled(method, "predict", outputs=("features",))
    latents = np.asarray(predict(params, {}, batch)["features"])
    if "latent" in params:
        latents = latents @ params["latent"]["kernel"] + params["latent"]["bias"]
    generate = compiled(Generator(8, (8, 12), 3), "apply")
    make_images = lambda z: generate({"params": params["generator"]}, z)
    same_pictures(shown["reconstruction"], bytes_of(make_images(latents)))
    same_pictures(shown["sample"], bytes_of(make_images(jax.random.normal(KEY, (4, 5)))))
    np.testing.assert_array_equal(shown["reconstruction"], other["reconstruction"])
    assert np.mean(np.asarray(shown["sample"]) != other["sample"]) > 0.5


CONV = "convnext(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)"


@pytest.mark.parametrize("make", [make_vae, make_bigan], ids=["vae", "bigan"])
@pytest.mark.parametrize(
    ("channels", "encoder"),
    [
        (1, SMALL["encoder"]),
        (5, CONV),
        pytest.param(1, CONV, marks=pytest.mark.thorough),
        pytest.param(5, SMALL["encoder"], marks=pytest.mark.thorough),
    ],
)
def test_any_number_of_channels_and_any_encoder(make, channels, encoder):
    method = make(encoder=encoder, mean=(0.5,), std=(0.25,))
    batch = {"image": jax.ShapeDtypeStruct((2, 8, 20, channels), jnp.uint8)}
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, extra = jax.eval_shape(method.init, key, batch)
    pictures = jax.eval_shape(method.pictures(), params, extra, batch, key=key)
    assert {picture.shape for picture in pictures.values()} == {(2, 8, 20, channels)}
    output = jax.eval_shape(lambda *args: method.loss(*args, 0), params, extra, batch, key)
    assert output.loss.shape == () and output.loss.dtype == jnp.float32
    assert {m.shape for m in output.metrics.values()} == {()}


@pytest.mark.parametrize("make", [make_vae, make_bigan], ids=["vae", "bigan"])
def test_bfloat16_is_near(batch, make):
    single, half = make(), make(dtype="bfloat16")
    params = started(half, batch)
    losses = [compiled(m, "loss")(params, {}, batch, KEY, 0).loss for m in (single, half)]
    assert losses[0] != losses[1] and losses[1].dtype == jnp.float32
    np.testing.assert_allclose(*losses, rtol=0.05)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (vae.make, dict(latent=0), "latent=0"),
        (vae.make, dict(decoder_width=0), "decoder_width=0"),
        (vae.make, dict(beta=-1.0), "beta=-1.0 must not be negative"),
        (vae.make, dict(pool="max"), "choose cls, mean"),
        (vae.make, dict(dtype="float16"), "choose float32, bfloat16"),
        (bigan.make, dict(latent=0), "latent=0"),
        (bigan.make, dict(discriminator_width=-4), "discriminator_width=-4"),
        (bigan.make, dict(loss="wasserstein"), "choose nonsaturating, hinge"),
        (bigan.make, dict(discriminator_lr=0.0), "discriminator_lr=0.0 must be positive"),
        (bigan.make, dict(pool="max"), "choose cls, mean"),
        (bigan.make, dict(dtype="float16"), "choose float32, bfloat16"),
    ],
)
def test_mistakes_are_named(make, options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make(**(SMALL | options))
