"""Linear probing: heads side by side learn as if each were alone, on normalized features."""

import jax
import numpy as np
import pytest

from mae_jax.engine.mesh import make_mesh, put_batch
from mae_jax.engine.optim import make_optimizer
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.tasks import linear_probe
from mae_jax.types import UserError
from tests.helpers.compiled import compiled

PLAIN = dict(encoder="vit(width=16, depth=1, heads=2, patch=4)", classes=3)


@pytest.fixture(scope="module")
def batch():
    """[8, 8, 8, 3] uint8 and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    return {"image": images, "label": (np.arange(8) % 3).astype(np.int32)}


def trained(task, batch, steps, base=1.0):
    """The state after some steps of LARS."""
    mesh = make_mesh(data=2)
    tx = make_optimizer(
        name="lars", schedule=lambda step: base, rules=task.rules(), weight_decay=0.0, b1=0.9
    )
    initial_state, abstract_state = plan_state(mesh, task, tx, batch, seed=0)
    step, state = make_train_step(mesh, abstract_state, task, tx, seed=0), initial_state()
    for _ in range(steps):
        state, _ = step(state, put_batch(batch, mesh))
    return jax.device_get(state)


def test_batch_statistics_are_those_of_torch(batch):
    """Over 50 random batches: what the classifier sees, and what it keeps for later."""
    torch = pytest.importorskip("torch")
    task = linear_probe.make(**PLAIN)
    params, extra = compiled(task, "init")(jax.random.key(0), batch)
    head = np.asarray(params["head_0"]["kernel"], np.float64)
    theirs = torch.nn.BatchNorm1d(16, affine=False, eps=1e-6, momentum=0.1).double()
    features = jax.jit(lambda p, batch: task.features(p, task.normalize(batch["image"])))
    loss = jax.jit(lambda extra, batch: task.loss(params, extra, batch, jax.random.key(1), 0))
    rng = np.random.default_rng(1)
    for _ in range(50):
        batch = {"image": rng.integers(0, 256, (8, 8, 8, 3)), "label": rng.integers(0, 3, 8)}
        seen = theirs(torch.tensor(np.asarray(features(params, batch), np.float64)))
        expected = torch.nn.functional.cross_entropy(
            seen @ torch.tensor(head), torch.tensor(batch["label"])
        )
        output = loss(extra, batch)
        extra = output.extra
        np.testing.assert_allclose(output.loss, expected, rtol=1e-6)
        np.testing.assert_allclose(extra["mean"], theirs.running_mean, atol=1e-6)
        np.testing.assert_allclose(extra["var"], theirs.running_var, rtol=1e-6, atol=1e-6)
    outside = torch.tensor(np.asarray(features(params, batch), np.float64))
    expected = theirs.eval()(outside).numpy() @ head
    found = compiled(task, "predict", outputs=("logits",))(params, extra, batch)["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.thorough
def test_heads_learn_as_if_each_were_alone(batch):
    both = trained(linear_probe.make(**PLAIN, lr_factors=(0.5, 2.0)), batch, 6)
    for i, factor in enumerate((0.5, 2.0)):
        alone = linear_probe.make(**PLAIN, lr_factors=(factor,))
        # The same start: a single head of this number's parameters.
        mesh = make_mesh(data=2)
        tx = make_optimizer(
            name="lars", schedule=lambda step: 1.0, rules=alone.rules(), weight_decay=0.0
        )
        initial_state, abstract_state = plan_state(mesh, alone, tx, batch, seed=0)
        start = trained(linear_probe.make(**PLAIN, lr_factors=(0.5, 2.0)), batch, 0).params
        state = initial_state()
        state = state.replace(
            params={"encoder": start["encoder"], "head_0": start[f"head_{i}"]},
        )
        step = make_train_step(mesh, abstract_state, alone, tx, seed=0)
        for _ in range(6):
            state, _ = step(state, put_batch(batch, mesh))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
            jax.device_get(state.params["head_0"]),
            both.params[f"head_{i}"],
        )


def test_the_encoder_stays_as_it_is(batch):
    task = linear_probe.make(**PLAIN)
    before, after = (trained(task, batch, steps).params for steps in (0, 5))
    jax.tree.map(np.testing.assert_array_equal, before["encoder"], after["encoder"])
    assert (before["head_0"]["kernel"] != after["head_0"]["kernel"]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(lr_factors=()), "lr_factors=() must be positive"),
        (dict(pool="max"), "pool 'max' is unknown"),
        (dict(classes=1), "classes=1 must be at least 2"),
    ],
)
def test_wrong_options_are_explained(options, message):
    with pytest.raises(UserError) as error:
        linear_probe.make(**PLAIN | options)
    assert message in str(error.value)


def test_the_features_of_a_signal_are_the_mean_of_its_class_tokens():
    encoder = "vit(width=16, depth=1, heads=2, patch=4, class_tokens=3)"
    task = linear_probe.make(encoder=encoder, classes=3, pool="cls")
    batch = {"image": np.random.default_rng(0).integers(0, 256, (2, 12, 1)).astype(np.uint8)}
    params, extra = jax.jit(task.init)(jax.random.key(0), batch)
    found = jax.jit(lambda p: task.predict(p, extra, batch, outputs=("features", "logits")))(params)
    tokens = jax.jit(task.tokens)(params, task.normalize(batch["image"]))
    assert tokens.shape == (2, 3 + 3, 16) and found["logits"].shape == (2, 3)
    np.testing.assert_allclose(found["features"], tokens[:, :3].mean(axis=1), atol=1e-6)
