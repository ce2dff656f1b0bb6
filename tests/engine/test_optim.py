"""Schedules and optimizers against float64 numpy and PyTorch's rules written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mae_jax.engine.optim import DECAY_MATRICES, make_optimizer, make_plan
from mae_jax.tasks.finetune import layer_rules
from mae_jax.types import UserError


def test_plan_warms_up_then_follows_half_a_cosine():
    plan = make_plan(
        base_lr=1.5e-4, epochs=10, warmup_epochs=2, min_lr=1e-6, batch_size=512, num_examples=5000
    )
    assert (plan.steps, plan.warmup_steps) == (98, 20)
    assert plan.peak_lr == pytest.approx(3e-4)
    for step in range(98):
        if step < 20:
            expected = 3e-4 * step / 20
        else:
            expected = 1e-6 + (3e-4 - 1e-6) * (1 + np.cos(np.pi * (step - 20) / 78)) / 2
        assert float(plan.schedule(step)) == pytest.approx(expected, rel=1e-6, abs=1e-10)
    assert float(plan.schedule(10**6)) == pytest.approx(1e-6)


@pytest.mark.parametrize("epochs, warmup", [(0, 0), (1, 2), (1, -1)])
def test_plans_that_cannot_be_are_refused(epochs, warmup):
    with pytest.raises(UserError, match="epochs"):
        make_plan(base_lr=1, epochs=epochs, warmup_epochs=warmup, batch_size=8, num_examples=800)


def adamw(params, grads, schedule, decay, b1=0.9, b2=0.95, eps=1e-8):
    """AdamW (arXiv 1711.05101, decay times learning rate) in float64."""
    p = {k: v.astype(np.float64) for k, v in params.items()}
    m = {k: np.zeros_like(v) for k, v in p.items()}
    v = {k: np.zeros_like(x) for k, x in p.items()}
    for step, gradient in enumerate(grads):
        for k in p:
            g = gradient[k].astype(np.float64)
            m[k] = b1 * m[k] + (1 - b1) * g
            v[k] = b2 * v[k] + (1 - b2) * g * g
            move = m[k] / (1 - b1 ** (step + 1)) / (np.sqrt(v[k] / (1 - b2 ** (step + 1))) + eps)
            p[k] = p[k] - schedule(step) * (move + decay[k] * p[k])
    return p


@pytest.mark.parametrize("clip", [None, 0.5])
def test_adamw_against_float64(clip):
    rng = np.random.default_rng(0)
    shapes = {"fc/kernel": (4, 3), "fc/bias": (3,), "norm/scale": (3,), "cls_token": (1, 1, 3)}
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    grads = [
        {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()} for _ in range(50)
    ]
    schedule = lambda step: 0.01 + 0.001 * step
    tx = make_optimizer(schedule=schedule, weight_decay=0.05, clip=clip)
    ours, state = jax.tree.map(jnp.asarray, params), None
    state = tx.init(ours)
    update = jax.jit(lambda g, s, p, step: tx.update(g, s, p, step=step))
    for step, gradient in enumerate(grads):
        updates, state = update(gradient, state, ours, step)
        ours = optax.apply_updates(ours, updates)
    if clip is not None:
        norms = [np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in t.values())) for t in grads]
        grads = [
            {k: g * min(1, clip / norm) for k, g in t.items()}
            for t, norm in zip(grads, norms, strict=True)
        ]
    decay = {"fc/kernel": 0.05, "cls_token": 0.05, "fc/bias": 0.0, "norm/scale": 0.0}
    for name, expected in adamw(params, grads, schedule, decay).items():
        np.testing.assert_allclose(ours[name], expected, rtol=2e-5, atol=2e-5)


def test_rules_scale_freeze_and_keep_no_moments():
    params = {"frozen": jnp.ones((3,)), "half": jnp.ones((3,)), "whole": jnp.ones((3,))}
    rules = (("frozen", None), ("half", (0.5, 0.0)), ("", (1.0, 0.0)))
    tx = make_optimizer(name="sgd", schedule=lambda step: 0.1, rules=rules, b1=0.0)
    state = tx.init(params)
    assert not any(
        "frozen" in jax.tree_util.keystr(path)[-12:] and "trace" in jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(state)
    )
    moments = [x for x in jax.tree.leaves(state) if getattr(x, "shape", ()) == (3,)]
    assert len(moments) == 2
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), state, params, step=0)
    np.testing.assert_allclose(updates["frozen"], 0)
    np.testing.assert_allclose(updates["half"], -0.05)
    np.testing.assert_allclose(updates["whole"], -0.1)


def test_parameters_that_learn_from_a_step_on():
    """Before it neither gradients nor decay move them; Adam's moments are those of all steps."""
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=(5, 4)).astype(np.float32) for name in ("early", "late")}
    grads = [
        {name: rng.normal(size=(5, 4)).astype(np.float32) for name in params} for _ in range(6)
    ]
    rules = (("late", (0.5, 1.0, 3)), ("", (0.5, 1.0)))
    tx = make_optimizer(schedule=lambda step: 0.1, rules=rules, weight_decay=0.5)
    ours = jax.tree.map(jnp.asarray, params)
    state = tx.init(ours)
    update = jax.jit(lambda g, s, p, step: tx.update(g, s, p, step=step))
    for step, gradient in enumerate(grads):
        updates, state = update(gradient, state, ours, step)
        ours = optax.apply_updates(ours, updates)
        if step < 3:
            np.testing.assert_array_equal(ours["late"], params["late"])
    for name, first in (("early", 0), ("late", 3)):
        rate = lambda step, first=first: 0.05 * (step >= first)
        expected = adamw({name: params[name]}, grads, rate, {name: 0.5})[name]
        np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-5)


def test_layer_decay_over_fifty_steps():
    """Fine-tuning's rules against float64: each layer with its own rate and its own decay."""
    depth, layer_decay = 3, 0.65
    rng = np.random.default_rng(0)
    layers = {"embed/kernel": 0, "cls_token": 0, "positions": 0}
    layers |= {f"block_{i}/mlp/fc1/{leaf}": i + 1 for i in range(3) for leaf in ("kernel", "bias")}
    names = {f"encoder/{name}": layer for name, layer in layers.items()}
    names |= {"fc_norm/scale": 4, "head/kernel": 4, "head/bias": 4}
    kept = ("bias", "scale", "cls_token", "positions")
    decay = {name: 0.0 if name.endswith(kept) else 0.05 for name in names}
    params = {name: (rng.normal(size=(5, 4)) / 10).astype(np.float32) for name in names}
    grads = [
        {name: rng.normal(size=(5, 4)).astype(np.float32) for name in names} for _ in range(50)
    ]
    rates = 1e-3 * rng.random(50)
    schedule = lambda step: jnp.asarray(rates, jnp.float32)[step]
    rules = layer_rules(depth, layer_decay, "all")
    tx = make_optimizer(schedule=schedule, rules=rules, weight_decay=0.05, b2=0.999)
    ours = jax.tree.map(jnp.asarray, params)
    state = tx.init(ours)
    update = jax.jit(lambda g, s, p, step: tx.update(g, s, p, step=step))
    for step, gradient in enumerate(grads):
        updates, state = update(gradient, state, ours, step)
        ours = optax.apply_updates(ours, updates)
    for name, layer in names.items():
        rate = lambda step, layer=layer: rates[step] * 0.65 ** (4 - layer)
        expected = adamw({name: params[name]}, grads, rate, decay, b2=0.999)[name]
        np.testing.assert_allclose(ours[name], expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_default_rules_decay_tokens_and_matrices_only():
    tx = make_optimizer(name="sgd", schedule=lambda step: 1.0, weight_decay=0.5, b1=0.0)
    assert tx is not None and DECAY_MATRICES[0][1] == (1.0, 0.0)
    params = {
        "kernel": jnp.ones(2),
        "bias": jnp.ones(2),
        "scale": jnp.ones(2),
        "token": jnp.ones(2),
    }
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params, step=0)
    moved = {name: float(-update[0]) for name, update in updates.items()}
    assert moved == {"kernel": 0.5, "bias": 0.0, "scale": 0.0, "token": 0.5}


def test_unknown_optimizer():
    with pytest.raises(UserError, match="adamw, sgd"):
        make_optimizer(name="adam", schedule=lambda step: 0.1)


def test_lars_is_the_official_rule():
    """Over 50 steps, against the rule in float64; `optax.lars` would fail this."""
    rng = np.random.default_rng(0)
    params = {
        "kernel": rng.normal(size=(6, 4)),
        "zero": np.zeros((3, 2)),
        "bias": rng.normal(size=4),
    }
    gradients = [
        {name: rng.normal(size=values.shape) for name, values in params.items()} for _ in range(50)
    ]
    rates = 0.3 * np.cos(np.linspace(0, 1.5, 50)) + 0.01
    tx = make_optimizer(
        name="lars",
        schedule=lambda step: jnp.asarray(rates, jnp.float32)[step],
        weight_decay=0.02,
        b1=0.9,
    )
    found = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state = tx.init(found)
    update = jax.jit(lambda g, s, p, step: tx.update(g, s, p, step=step))
    momentum = {name: np.zeros_like(values) for name, values in params.items()}
    for step, gradient in enumerate(gradients):
        updates, state = update(
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradient), state, found, step
        )
        found = optax.apply_updates(found, updates)
        for name, direction in gradient.items():
            if direction.ndim > 1:
                direction = direction + 0.02 * params[name]
                norm = np.linalg.norm(params[name])
                direction = direction * (0.001 * norm / np.linalg.norm(direction) if norm else 1)
            momentum[name] = 0.9 * momentum[name] + direction
            params[name] = params[name] - rates[step] * momentum[name]
        for name in params:
            np.testing.assert_allclose(found[name], params[name], rtol=1e-6, atol=2e-6)


def test_a_linear_fall_ends_at_the_lowest_rate():
    options = dict(base_lr=1.6e-3, epochs=10, warmup_epochs=1, batch_size=16, num_examples=160)
    plan = make_plan(**options, decay="linear")
    assert plan.peak_lr == pytest.approx(1e-4)
    for step in (0, 5, 10, 37, 99):
        expected = 1e-4 * (step / 10 if step < 10 else 1 - (step - 10) / 90)
        assert float(plan.schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-10)
    with pytest.raises(UserError, match="decay 'step' is unknown: choose cosine, linear, steps"):
        make_plan(**options, decay="step")


def test_steps_fall_to_a_tenth_and_a_hundredth():
    """After 88.9% and 96.3%, as in detectron2's recipe for ViTDet."""
    options = dict(base_lr=1.6e-3, epochs=10, warmup_epochs=0, batch_size=16, num_examples=160)
    plan = make_plan(**options, decay="steps")
    found = [float(plan.schedule(step)) for step in (0, 88, 89, 96, 97, 99)]
    np.testing.assert_allclose(found, [1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6], rtol=1e-5)
