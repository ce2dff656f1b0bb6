"""Fine-tuning: who learns and how fast, soft targets, dropped paths, averaged weights."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.engine.mesh import make_mesh, put_batch
from mae_jax.engine.optim import make_optimizer
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.ops import augment
from mae_jax.rules import map_rules
from mae_jax.tasks import finetune
from mae_jax.types import UserError
from tests.helpers.compiled import compiled, noise_like

ENCODER = "vit(width=16, depth=2, heads=2, patch=4)"
PLAIN = dict(encoder=ENCODER, classes=3, drop_path=0.0, smoothing=0.0, mixup=0.0, cutmix=0.0)


@pytest.fixture(scope="module")
def batch():
    """[4, 8, 12, 3] uint8 and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 12, 3)).astype(np.uint8)
    return {"image": images, "label": np.array([0, 1, 2, 1], np.int32)}


def factors(depth, layer_decay, trainable, path):
    """The rule that holds for a parameter."""
    rules = finetune.layer_rules(depth, layer_decay, trainable)
    return next(value for pattern, value in rules if re.search(pattern, path))


@pytest.mark.parametrize(
    ("path", "layer", "decayed"),
    [
        ("encoder/embed/kernel", 0, True),
        ("encoder/embed/bias", 0, False),
        ("encoder/cls_token", 0, False),
        ("encoder/positions", 0, False),
        ("encoder/block_0/mlp/fc1/kernel", 1, True),
        ("encoder/block_0/norm1/scale", 1, False),
        ("encoder/block_1/attention/qkv/bias", 2, False),
        ("encoder/block_11/attention/qkv/kernel", 12, True),
        ("encoder/norm/scale", 13, False),
        ("fc_norm/bias", 13, False),
        ("head/kernel", 13, True),
        ("head/bias", 13, False),
    ],
)
def test_layers_learn_more_slowly_towards_the_input(path, layer, decayed):
    lr, decay = factors(12, 0.65, "all", path)
    assert lr == pytest.approx(0.65 ** (13 - layer)) and decay == float(decayed)


TRAINABLE = [
    (0, set()),
    (1, {"block_1/mlp", "block_1/norm2", "block_1/norm1", "block_1/attention"}),
    ("mlp", {"block_1/mlp", "block_1/norm2"}),
]


def parts(names):
    """The parts of the encoder, 'block_1/mlp' and the like, that paths of parameters are in."""
    inside = [name.removeprefix("encoder/") for name in names if name.startswith("encoder/")]
    return {"/".join(name.split("/")[:2]) for name in inside}


@pytest.mark.parametrize(("trainable", "learning"), TRAINABLE)
def test_rules_say_what_is_tuned(batch, trainable, learning):
    task = finetune.make(**PLAIN, trainable=trainable)
    params, _ = jax.eval_shape(task.init, jax.random.key(0), batch)
    leaves = jax.tree_util.tree_leaves_with_path(map_rules(params, task.rules()), is_leaf=is_rule)
    learns = {jax.tree_util.keystr(p, simple=True, separator="/") for p, rule in leaves if rule}
    assert {"head/kernel", "head/bias"} <= learns and parts(learns) == learning


def is_rule(x):
    return x is None or isinstance(x, tuple)


@pytest.mark.parametrize(
    ("trainable", "learning"),
    [pytest.param(*TRAINABLE[0], marks=pytest.mark.thorough), TRAINABLE[1]]
    + [pytest.param(*TRAINABLE[2], marks=pytest.mark.thorough)],
)
def test_partial_tuning_is_a_matter_of_rules(batch, trainable, learning):
    task = finetune.make(**PLAIN, trainable=trainable)
    tx = make_optimizer(schedule=lambda step: 0.1, rules=task.rules(), weight_decay=0.1)
    mesh = make_mesh(data=2)
    initial_state, abstract_state = plan_state(mesh, task, tx, batch, seed=0)
    before = jax.device_get(initial_state().params)
    state, _ = make_train_step(mesh, abstract_state, task, tx, seed=0)(
        initial_state(), put_batch(batch, mesh)
    )
    after = jax.device_get(state.params)
    moved = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
        )
        if (a != b).any()
    }
    assert {"head/kernel", "head/bias"} <= moved and parts(moved) == learning
    # Adam keeps two moments for what learns, and none for the rest.
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    learns = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(before)
        if next(
            v
            for p, v in task.rules()
            if re.search(p, jax.tree_util.keystr(path, simple=True, separator="/"))
        )
    )
    assert moments == 2 * learns


def test_the_loss_is_cross_entropy_with_soft_targets(batch):
    task = finetune.make(**PLAIN | dict(smoothing=0.1, mixup=0.8, cutmix=1.0))
    params, extra = noise_like(task.init, jax.random.key(0), batch)
    output = compiled(task, "loss")(params, extra, batch, jax.random.key(3), 0)

    @jax.jit
    def again(params, batch):
        mix_key, _ = jax.random.split(jax.random.key(3))
        images, targets = augment.mixup_cutmix(
            mix_key,
            task.normalize(batch["image"]),
            augment.soft_targets(batch["label"], 3, 0.1),
            mixup_alpha=0.8,
            cutmix_alpha=1.0,
        )
        return task.model.apply({"params": params}, images)[1], targets

    logits, targets = again(params, batch)
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(targets * log_softmax).sum(1).mean()
    np.testing.assert_allclose(output.loss, expected, rtol=1e-5)


def test_dropped_paths_are_rare_random_and_scaled(batch):
    encoder = "vit(width=16, depth=3, heads=2, patch=4)"
    task = finetune.make(**PLAIN | dict(encoder=encoder, drop_path=0.9))
    params, _ = noise_like(task.init, jax.random.key(0), batch)

    @functools.partial(jax.jit, static_argnums=0)
    def apply(train, seed):
        images = task.normalize(jnp.repeat(batch["image"][:1], 400, axis=0))
        rngs = {"drop_path": jax.random.key(seed)}
        return task.model.apply({"params": params}, images, train, rngs=rngs)[0]

    still = apply(False, 0)
    np.testing.assert_array_equal(still[0], still[1])
    dropped = np.asarray(apply(True, 1))
    kinds = len(np.unique(dropped.round(4), axis=0))
    assert kinds > 4, "each example drops for itself"
    assert not np.array_equal(dropped, apply(True, 2))
    with pytest.raises(UserError, match="drop_path=1.0"):
        finetune.make(**PLAIN | dict(drop_path=1.0))


def test_averaged_weights_predict(batch):
    task = finetune.make(**PLAIN, ema=0.75)
    params, extra = jax.device_get(compiled(task, "init")(jax.random.key(0), batch))
    moved = jax.tree.map(lambda x: x + 1, params)
    extra = jax.jit(task.after_update)(moved, extra, 0)
    expected = jax.tree.map(lambda x: x + np.float32(0.25), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), extra["ema"], expected)
    plain = finetune.make(**PLAIN)
    np.testing.assert_allclose(
        compiled(task, "predict", outputs=("logits",))(moved, extra, batch)["logits"],
        compiled(plain, "predict", outputs=("logits",))(expected, {}, batch)["logits"],
        atol=1e-4,
    )
    again = task.after_load(moved, extra)
    jax.tree.map(np.testing.assert_array_equal, again["ema"], moved)
    assert plain.after_load(moved, {}) == {}


def test_pooling(batch):
    for pool, norm in (("mean", "fc_norm"), ("cls", "encoder/norm")):
        task = finetune.make(**PLAIN, pool=pool)
        params, extra = noise_like(task.init, jax.random.key(0), batch)
        assert ("fc_norm" in params, "norm" in params["encoder"]) == (pool == "mean", pool == "cls")
        plain = dict(scale=np.ones(16, np.float32), bias=np.zeros(16, np.float32))
        params |= (
            {norm: plain} if pool == "mean" else {"encoder": params["encoder"] | dict(norm=plain)}
        )
        predict = compiled(task, "predict", outputs=("features",))
        features = np.asarray(predict(params, extra, batch)["features"])
        np.testing.assert_allclose(features.mean(axis=1), 0, atol=1e-5, err_msg=norm)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(trainable=3), "trainable 3: choose 'all', 'mlp' or a number up to 2"),
        (dict(trainable="half"), "trainable 'half'"),
        (dict(pool="max"), "pool 'max' is unknown: choose cls, mean"),
        (dict(layer_decay=0.0), "layer_decay=0.0 in"),
        (dict(ema=1.0), "ema=1.0"),
        (dict(classes=1), "classes=1 must be at least 2"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(UserError) as error:
        finetune.make(**PLAIN | options)
    assert message in str(error.value)


@pytest.mark.parametrize(("count", "pool"), [(0, "mean"), (3, "cls")])
def test_signals_are_classified_with_any_number_of_class_tokens(count, pool):
    encoder = f"vit(width=16, depth=1, heads=2, patch=4, class_tokens={count})"
    task = finetune.make(encoder=encoder, classes=3, pool=pool)
    batch, key = task.example((12, 1)), jax.random.key(0)
    params, extra = jax.eval_shape(task.init, key, batch)
    assert params["encoder"]["positions"].shape == (count + 3, 16)
    assert ("cls_token" in params["encoder"]) == (count > 0)
    loss = lambda params, batch: task.loss(params, extra, batch, key, 0).loss
    jax.eval_shape(jax.grad(loss), params, batch)
    outputs = jax.eval_shape(
        lambda *args: task.predict(*args, outputs=task.offers()), params, extra, batch
    )
    assert {name: x.shape for name, x in outputs.items()} == dict(features=(1, 16), logits=(1, 3))
