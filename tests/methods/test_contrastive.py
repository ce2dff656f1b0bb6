"""SimCLR and MoCo v3: losses, the momentum encoder, what learns, and heads, against float64 numpy
and torch.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.engine.mesh import batch_sharding, make_mesh, put_batch
from mae_jax.engine.optim import make_optimizer
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.methods import mocov3, simclr
from mae_jax.models.heads import BatchNorm, ProjectionHead
from mae_jax.ops import views
from mae_jax.rules import map_rules
from mae_jax.types import UserError
from tests.helpers.compiled import compiled, noise_like

VIT = "vit(width=16, depth=1, heads=2, patch=4)"
CONV = "convnext(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)"
PLAIN = dict(jitter=(0, 0, 0, 0), blur=0.0)
KEY = jax.random.key(1)


@functools.cache
def make(name, encoder=VIT, *, total_steps=30, **options):
    """A small method, the same one for the same arguments."""
    if name == "simclr":
        return simclr.make(encoder=encoder, projector=(12, 8), **options)
    small = dict(projector=(12, 12, 8), predictor=(10, 8))
    method = mocov3.make(encoder=encoder, **small | options)
    return dataclasses.replace(method, total_steps=total_steps)


def make_plain(name, **options):
    """The same, without photometric augmentation."""
    still = dict(PLAIN, blur=(0, 0), solarize=(0, 0)) if name == "mocov3" else PLAIN
    return make(name, **still, **options)


@functools.cache
def make_batch(count=4, channels=3):
    """Views [count, 8, 12, channels] uint8 that are mirror images but for a little noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(20, 236, (count, 8, 12, channels))
    image2 = image[:, :, ::-1] + rng.integers(-20, 20, image.shape)
    return {"image": image.astype(np.uint8), "image2": image2.astype(np.uint8)}


def start(method, batch):
    return noise_like(method.init, jax.random.key(0), batch, scale=0.2)


def train(method, steps, batch):
    """The states before and after each of some steps, on two devices."""
    mesh = make_mesh()
    tx = make_optimizer(schedule=lambda step: 3e-3, rules=method.rules())
    initial_state, abstract_state = plan_state(mesh, method, tx, batch, seed=0)
    step, state = make_train_step(mesh, abstract_state, method, tx, seed=0), initial_state()
    states, placed = [jax.device_get(state)], put_batch(batch, mesh)
    for _ in range(steps):
        state, _ = step(state, placed)
        states.append(jax.device_get(state))
    return states


def rows(x):
    """Unit rows, float64."""
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def normalized(images, method):
    """What the network sees of bytes."""
    return np.float32((images / 255 - np.array(method.mean)) / np.array(method.std))


def cross_entropy(logits, own):
    """The mean of -log softmax(logits)[own] over the rows."""
    return np.mean([np.log(np.exp(row).sum()) - row[i] for row, i in zip(logits, own)])


@pytest.mark.parametrize("name", ["simclr", "mocov3"])
def test_one_view_is_not_enough(name):
    method, batch = make(name), make_batch()
    alone = {"image": batch["image"]}
    message = f"{name} learns from two views of each image: set config.data.views=2"
    with pytest.raises(UserError, match=message):
        jax.eval_shape(method.init, KEY, alone)
    params, extra = jax.eval_shape(method.init, KEY, batch)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda p, e: method.loss(p, e, alone, KEY, 0), params, extra)
    predict = functools.partial(method.predict, outputs=("features",))
    assert jax.eval_shape(predict, params, extra, alone)["features"].shape == (4, 16)


def test_simclrs_loss_is_nt_xent_of_the_projected_views():
    method, batch = make_plain("simclr", temperature=0.3), make_batch()
    params, extra = start(method, batch)
    output = compiled(method, "loss")(params, extra, batch, KEY, 0)
    images = np.concatenate([batch["image"], batch["image2"]])
    # One batch for the projector's BatchNorm, in whatever order.
    z = rows(compiled(method, "project")(params, normalized(images, method)))
    logits = z @ z.T / 0.3
    expected = cross_entropy(
        [np.delete(row, i) for i, row in enumerate(logits)],
        [(i + 4) % 8 - ((i + 4) % 8 > i) for i in range(8)],
    )
    np.testing.assert_allclose(output.loss, expected, rtol=1e-5)


def test_mocos_loss_is_symmetric_between_queries_and_the_momentum_encoders_keys():
    method, batch = make_plain("mocov3", temperature=0.3), make_batch()
    params, extra = start(method, batch)
    output = compiled(method, "loss")(params, extra, batch, KEY, 0)

    @jax.jit
    def project(tree, images, head=None):
        """One view alone, so that BatchNorm cannot see the other."""
        tokens = method.encoder.apply({"params": tree["encoder"]}, images)
        x = method.projector.apply({"params": tree["projector"]}, tokens[:, 0])
        return x if head is None else method.predictor.apply({"params": head}, x)

    seen = {name: normalized(images, method) for name, images in batch.items()}
    expected = 0
    for name, other in (("image", "image2"), ("image2", "image")):
        queries = rows(project(params, seen[name], params["predictor"]))
        logits = queries @ rows(project(extra["momentum"], seen[other])).T / 0.3
        expected += 2 * 0.3 * cross_entropy(logits, range(4))
    np.testing.assert_allclose(output.loss, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr", pytest.param("mocov3", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    "encoder",
    [pytest.param(VIT, id="vit"), pytest.param(CONV, id="conv", marks=pytest.mark.thorough)],
)
def test_the_loss_is_that_of_the_global_batch(name, encoder):
    method, batch = make_plain(name, encoder=encoder), make_batch()
    params, extra = start(method, batch)
    loss = jax.jit(lambda batch: method.loss(params, extra, batch, KEY, 0))
    whole = loss(batch)
    split = loss(jax.device_put(batch, batch_sharding(make_mesh())))
    halves = [loss({k: v[i : i + 2] for k, v in batch.items()}).loss for i in (0, 2)]
    np.testing.assert_allclose(split.loss, whole.loss, rtol=1e-5)
    np.testing.assert_allclose(split.metrics["top1"], whole.metrics["top1"])
    assert abs(np.mean(halves) - whole.loss) > 1e-2, "each device by itself would give another"
    assert 0 <= float(whole.metrics["top1"]) <= 1 and whole.loss.dtype == jnp.float32


def test_only_the_second_view_of_moco_is_solarized_and_the_first_always_blurred(monkeypatch):
    seen = []
    monkeypatch.setattr(
        views, "photometric", lambda key, images, **options: seen.append(options) or images / 255.0
    )
    method, batch = make("mocov3"), make_batch()
    params, extra = jax.eval_shape(method.init, KEY, batch)
    jax.eval_shape(lambda p, e: method.loss(p, e, batch, KEY, 0), params, extra)
    jitter = (0.4, 0.4, 0.2, 0.1)
    assert seen == [
        dict(jitter=jitter, blur=1.0, solarize=0.0),
        dict(jitter=jitter, blur=0.1, solarize=0.2),
    ]


@pytest.mark.parametrize("name", ["simclr", pytest.param("mocov3", marks=pytest.mark.thorough)])
def test_views_are_augmented_with_the_key(name):
    method, batch = make(name, temperature=0.3), make_batch()
    params, extra = start(method, batch)
    loss = lambda method, key: float(compiled(method, "loss")(params, extra, batch, key, 0).loss)
    assert loss(method, KEY) == loss(method, KEY) != loss(method, jax.random.key(2))
    assert loss(method, KEY) != loss(make_plain(name, temperature=0.3), KEY)


@pytest.fixture(scope="module")
def moco_states():
    return train(make_plain("mocov3", momentum=0.9, total_steps=5), 5, make_batch())


def test_the_momentum_encoder_follows_the_parameters_after_each_step(moco_states):
    """Against the formula in float64: m_s = 1 - (1 - m) (cos(pi s / S) + 1) / 2."""
    flat = lambda tree: np.concatenate(
        [
            np.ravel(x).astype(np.float64)
            for x in jax.tree.leaves([tree["encoder"], tree["projector"]])
        ]
    )
    expected = flat(moco_states[0].params)
    for step in range(3):
        m = 1 - (1 - 0.9) * (np.cos(np.pi * step / 5) + 1) / 2
        expected = m * expected + (1 - m) * flat(moco_states[step + 1].params)
    ours = flat(moco_states[3].extra["momentum"])
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
    assert np.abs(ours - flat(moco_states[3].params)).max() > 1e-3, "it is not the encoder itself"
    assert set(moco_states[0].extra["momentum"]) == {"encoder", "projector"}


def test_the_momentum_rises_from_its_start_to_one():
    method = make("mocov3", momentum=0.9, total_steps=5)
    old, new = (
        {"encoder": np.full(3, value), "projector": np.full(2, value)} for value in (1.0, 2.0)
    )
    update = jax.jit(lambda step: method.after_update(new, {"momentum": old}, step)["momentum"])
    after = lambda step: float(np.asarray(update(step)["encoder"])[0])
    assert after(0) == pytest.approx(1.1, rel=1e-6)
    assert after(2) == pytest.approx(1 + 0.1 * (np.cos(np.pi * 2 / 5) + 1) / 2, rel=1e-6)
    assert after(5) == after(7) == 1, "nothing moves from the end on"


def test_the_momentum_encoder_starts_as_a_copy_of_loaded_parameters():
    method = make("mocov3")
    params, extra = start(method, make_batch())
    momentum = method.after_load(params, extra)["momentum"]
    assert momentum.keys() == {"encoder", "projector"}
    for name, tree in momentum.items():
        jax.tree.map(np.testing.assert_array_equal, tree, params[name])


def test_the_patch_embedding_of_a_vit_stays_as_it_was_drawn(moco_states):
    first, last = moco_states[0], moco_states[-1]
    for leaf in ("kernel", "bias"):
        drawn = first.params["encoder"]["embed"][leaf]
        np.testing.assert_array_equal(drawn, last.params["encoder"]["embed"][leaf])
        np.testing.assert_array_equal(drawn, last.extra["momentum"]["encoder"]["embed"][leaf])
    moved = jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda a, b: bool(np.any(a != b)), first.params, last.params)
    )
    still = {jax.tree_util.keystr(p, simple=True, separator="/") for p, m in moved if not m}
    assert still == {"encoder/embed/kernel", "encoder/embed/bias"}


def test_the_stem_of_a_convolutional_encoder_learns():
    rules = {}
    for encoder in (VIT, CONV):
        method = make("mocov3", encoder=encoder)
        params, _ = jax.eval_shape(method.init, KEY, make_batch())
        rules[encoder] = map_rules(params, method.rules())["encoder"]
    assert rules[VIT]["embed"] == {"kernel": None, "bias": None}
    assert rules[VIT]["block_0"]["mlp"]["fc1"] == {"kernel": (1.0, 1.0), "bias": (1.0, 0.0)}
    assert rules[CONV]["embed"] == {"kernel": (1.0, 1.0), "bias": (1.0, 0.0)}


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("name", ["mocov3", "simclr"])
def test_bfloat16_leaves_parameters_and_losses_in_float32(name):
    batch = make_batch()
    (full, half) = (make_plain(name, dtype=dtype) for dtype in ("float32", "bfloat16"))
    params, extra = start(half, batch)
    losses = []
    for method in (full, half):
        output, grads = jax.jit(
            jax.value_and_grad(lambda p, m=method: m.loss(p, extra, batch, KEY, 0).loss)
        )(params)
        assert output.dtype == jnp.float32
        assert all(g.dtype == jnp.float32 and np.isfinite(g).all() for g in jax.tree.leaves(grads))
        losses.append(float(output))
    assert losses[0] != losses[1] and abs(losses[0] - losses[1]) < 0.2
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((params, extra)))


@pytest.mark.thorough
def test_images_of_one_channel():
    batch = make_batch(channels=1)
    for name in ("simclr", "mocov3"):
        method = make(name, jitter=(0.4, 0.4, 0, 0))
        params, extra = start(method, batch)
        assert np.isfinite(compiled(method, "loss")(params, extra, batch, KEY, 0).loss)


@pytest.mark.parametrize("last_scale", [False, True])
def test_heads_are_torchs(last_scale):
    """Linear, BatchNorm, ReLU, Linear, BatchNorm as torch has them in training, and gradients."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (6, 5)).astype(np.float32)
    weights = rng.normal(size=(6, 4)).astype(np.float32)
    head = ProjectionHead((7, 4), last_scale=last_scale)
    params = noise_like(head.init, KEY, x, scale=0.4)["params"]

    @functools.partial(jax.grad, has_aux=True)
    def score(params):
        out = head.apply({"params": params}, x)
        return jnp.sum(out * weights), out

    grads, out = jax.device_get(jax.jit(score)(params))
    twin = torch.nn.Sequential(
        torch.nn.Linear(5, 7, bias=False),
        torch.nn.BatchNorm1d(7),
        torch.nn.ReLU(),
        torch.nn.Linear(7, 4, bias=False),
        torch.nn.BatchNorm1d(4, affine=last_scale),
    ).double()
    # torch's name of each of our parameters; its kernels are transposed.
    names = {
        ("fc0", "kernel"): "0.weight",
        ("norm0", "scale"): "1.weight",
        ("norm0", "bias"): "1.bias",
        ("fc1", "kernel"): "3.weight",
    } | ({("norm1", "scale"): "4.weight"} if last_scale else {})
    assert len(names) == len(jax.tree.leaves(params)), "all of them, and no more"
    with torch.no_grad():
        for (layer, leaf), name in names.items():
            twin.get_parameter(name).copy_(torch.tensor(params[layer][leaf].T))
    theirs = twin(torch.tensor(x, dtype=torch.float64))
    (theirs * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(out, theirs.detach(), rtol=1e-4, atol=1e-5)
    for (layer, leaf), name in names.items():
        theirs = twin.get_parameter(name).grad.numpy().T
        np.testing.assert_allclose(grads[layer][leaf], theirs, rtol=1e-3, atol=1e-4)


def test_the_last_norm_of_a_head_has_a_scale_in_simclr_and_no_parameters_in_moco():
    leaves = lambda tree: {name: set(layer) for name, layer in tree.items()}
    shared = {"fc0": {"kernel"}, "norm0": {"scale", "bias"}, "fc1": {"kernel"}}
    shapes = lambda name: jax.eval_shape(make(name).init, KEY, make_batch())[0]
    assert leaves(shapes("simclr")["projector"]) == shared | {"norm1": {"scale"}}
    assert leaves(shapes("mocov3")["predictor"]) == shared


def test_batch_norm_is_that_of_all_devices_and_float32():
    x = (1000 + np.random.default_rng(0).normal(size=(8, 3))).astype(np.float32)
    norm = BatchNorm()
    params = jax.jit(norm.init)(KEY, x)
    apply = jax.jit(lambda x: norm.apply(params, x))
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-5)
    for rows_ in (x, jax.device_put(x, batch_sharding(make_mesh()))):
        np.testing.assert_allclose(apply(rows_), exact, rtol=1e-3, atol=1e-3)
    assert apply(x.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("simclr", dict(temperature=0.0), "temperature=0.0 must be positive"),
        ("simclr", dict(pool="max"), "pool 'max' is unknown"),
        ("simclr", dict(dtype="float16"), "dtype 'float16' is unknown"),
        ("simclr", dict(jitter=(1.0,)), "four numbers"),
        ("mocov3", dict(momentum=1.5), "momentum=1.5 in"),
        ("mocov3", dict(temperature=-1.0), "temperature=-1.0"),
        ("mocov3", dict(predictor=(10, 9)), "last widths must be equal"),
        ("mocov3", dict(predictor=()), "positive widths"),
        ("mocov3", dict(blur=(1.0,)), "one for each of the two views"),
        ("mocov3", dict(blur=(1.0, 2.0)), "probabilities"),
    ],
)
def test_impossible_arguments_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        make(name, **options)
