"""Contrastive tuning: loss, neighbors and queue against float64 numpy; what learns, and when."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.engine.mesh import make_mesh, put_batch
from mae_jax.engine.optim import make_optimizer
from mae_jax.engine.step import make_train_step, plan_state
from mae_jax.methods import contrastive_tuning
from mae_jax.ops.contrastive import enqueue, nearest, nnclr
from mae_jax.rules import map_rules
from mae_jax.types import UserError
from tests.helpers.compiled import compiled
from tests.methods.test_contrastive import cross_entropy, make_batch, rows

SMALL = dict(projector=(12, 8), predictor=(10, 8), queue=6)
ENCODER = "vit(width=16, depth=2, heads=2, patch=4)"
KEY = jax.random.key(1)


@functools.cache
def make(total_steps=30, **options):
    """A small method: the upper one of two blocks is tuned."""
    method = contrastive_tuning.make(**dict(encoder=ENCODER, **SMALL) | options)
    return dataclasses.replace(method, total_steps=total_steps)


def expected_loss(neighbors, predictions, temperature):
    """The mean of both directions, in float64."""
    logits = rows(neighbors) @ rows(predictions).T / temperature
    own = range(len(logits))
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def test_nnclr_is_the_formula_in_both_directions():
    rng = np.random.default_rng(0)
    neighbors, predictions = rows(rng.normal(size=(5, 7))), 3 * rng.normal(size=(5, 7))
    loss, accuracy = nnclr(jnp.float32(neighbors), jnp.float32(predictions), temperature=0.2)
    expected = expected_loss(neighbors, predictions, 0.2)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    similarity = neighbors @ rows(predictions).T
    assert float(accuracy) == pytest.approx(np.mean(similarity.argmax(axis=1) == np.arange(5)))
    with pytest.raises(UserError, match="at least 2 images"):
        nnclr(jnp.ones((1, 7)), jnp.ones((1, 7)), temperature=0.2)


def test_neighbors_are_the_rows_of_the_largest_cosine():
    """Of queries of any length, without gradients."""
    rng = np.random.default_rng(0)
    queue, queries = rows(rng.normal(size=(9, 4))), rng.normal(size=(6, 4)) * 10
    found = nearest(jnp.float32(queries), jnp.float32(queue))
    chosen = (rows(queries) @ queue.T).argmax(axis=1)
    assert len(set(chosen)) > 2
    np.testing.assert_array_equal(found, np.float32(queue)[chosen])
    gradient = jax.grad(lambda x: nearest(x, jnp.float32(queue)).sum())(jnp.float32(queries))
    assert not np.any(gradient)


@pytest.mark.parametrize("size", [10, 3])
def test_a_queue_holds_the_newest_rows(size):
    """Also fewer than a batch has."""
    rng = np.random.default_rng(0)
    queue, new = rows(rng.normal(size=(size, 4))), rng.normal(size=(5, 4))
    expected = np.concatenate([rows(new), queue])[:size]
    np.testing.assert_allclose(enqueue(jnp.float32(queue), jnp.float32(new)), expected, atol=1e-6)


def test_the_loss_is_nnclr_of_both_orders_of_the_views():
    method, batch = make(temperature=0.3), make_batch()
    params, extra = compiled(method, "init")(jax.random.key(0), batch)
    np.testing.assert_allclose(np.linalg.norm(extra["queue"], axis=1), np.ones(6), rtol=1e-5)
    output = compiled(method, "loss")(params, extra, batch, KEY, 0)
    projected, predicted = [], []
    for name in ("image", "image2"):  # one view alone, so that BatchNorm cannot see the other
        tokens = compiled(method.encoder, "apply")(
            {"params": params["encoder"]}, method.normalize(batch[name])
        )
        x = np.asarray(tokens)[:, 1:].mean(axis=1)  # [B, D]
        x = compiled(method.projector, "apply")({"params": params["projector"]}, x)
        projected.append(x)
        predicted.append(compiled(method.predictor, "apply")({"params": params["predictor"]}, x))
    queue = rows(extra["queue"])
    neighbors = [queue[(rows(x) @ queue.T).argmax(axis=1)] for x in projected]
    losses = [
        expected_loss(neighbors[i], predicted[1 - i], 0.3) for i in (0, 1)
    ]  # of the first view's neighbors and the second's predictions, and the other way round
    np.testing.assert_allclose(output.loss, np.mean(losses), rtol=1e-4)
    assert abs(losses[0] - losses[1]) > 1e-3 and 0 <= float(output.metrics["top1"]) <= 1
    kept = np.concatenate([rows(projected[0]), queue])[:6]
    np.testing.assert_allclose(output.extra["queue"], kept, atol=1e-5)


def test_which_parts_learn_and_from_which_step_on():
    deep = ENCODER.replace("depth=2", "depth=3")
    method = make(encoder=deep, total_steps=40, head_share=0.25)
    params, _ = jax.eval_shape(method.init, KEY, make_batch())
    rules = map_rules(params, method.rules())
    encoder = rules["encoder"]
    for name in ("embed", "block_0"):
        values = jax.tree.leaves(encoder[name], is_leaf=lambda x: x is None)
        assert values and not any(values)
    assert encoder["cls_token"] is None
    assert encoder["block_1"]["mlp"]["fc1"] == {
        "kernel": (0.65**2, 1.0, 10),
        "bias": (0.65**2, 0.0, 10),
    }
    assert encoder["block_2"]["norm1"]["scale"] == (0.65, 0.0, 10)
    assert encoder["norm"] == {"scale": (1.0, 0.0, 10), "bias": (1.0, 0.0, 10)}
    assert rules["projector"]["fc0"]["kernel"] == rules["predictor"]["fc0"]["kernel"] == (1.0, 0.0)
    few = map_rules(params, make(encoder=deep, tuned_share=0.1).rules())["encoder"]
    assert few["block_1"]["mlp"]["fc1"]["kernel"] is None, "one block, rounded up"
    assert few["block_2"]["mlp"]["fc1"]["kernel"] == (0.65, 1.0, 15)


@pytest.mark.thorough
def test_the_encoder_keeps_its_bits_until_its_first_step():
    """On two devices, with weight decay; the lower blocks for ever."""
    method, batch, mesh = make(total_steps=4), make_batch(), make_mesh()
    tx = make_optimizer(schedule=lambda step: 3e-2, rules=method.rules(), weight_decay=0.5)
    initial_state, abstract_state = plan_state(mesh, method, tx, batch, seed=0)
    step, state = make_train_step(mesh, abstract_state, method, tx, seed=0), initial_state()
    states, placed = [jax.device_get(state)], put_batch(batch, mesh)
    for _ in range(3):
        state, _ = step(state, placed)
        states.append(jax.device_get(state))
    moved = [
        {
            part: any(
                np.any(a != b)
                for a, b in zip(jax.tree.leaves(get(one)), jax.tree.leaves(get(two)), strict=True)
            )
            for part, get in PARTS.items()
        }
        for one, two in zip(states[:-1], states[1:], strict=True)
    ]
    heads = dict.fromkeys(PARTS, False) | {"projector": True, "predictor": True, "queue": True}
    assert moved[:2] == [heads, heads]
    assert moved[2] == dict.fromkeys(PARTS, True) | {"embed": False, "block_0": False}
    # Rows of the first step, then those of the second: the queue of 6 keeps 2 of the 4 older ones.
    np.testing.assert_array_equal(states[2].extra["queue"][4:], states[1].extra["queue"][:2])


PARTS = {
    **{
        name: lambda state, name=name: state.params["encoder"][name]
        for name in ("embed", "block_0", "block_1", "norm")
    },
    "projector": lambda state: state.params["projector"],
    "predictor": lambda state: state.params["predictor"],
    "queue": lambda state: state.extra["queue"],
}
"""Part of a state -> its leaves."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(predictor=(10, 9)), "the last widths must be equal"),
        (dict(queue=0), "queue=0 at least 1"),
        (dict(temperature=0.0), "temperature=0.0 must be positive"),
        (dict(head_share=1.5), r"head_share=1.5 must be in \[0, 1\]"),
        (dict(tuned_share=0.0), r"tuned_share=0.0 and layer_decay=0.65 in \(0, 1\]"),
    ],
)
def test_values_that_cannot_work(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def test_one_view_is_not_enough():
    alone = {"image": make_batch()["image"]}
    with pytest.raises(UserError, match="contrastive_tuning learns from two views"):
        jax.eval_shape(make().init, KEY, alone)
