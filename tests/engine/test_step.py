"""The train step: same on every mesh, exact under accumulation, deaf to numbers that are not
finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.engine.mesh import make_mesh, put_batch
from mae_jax.engine.optim import make_optimizer
from mae_jax.engine.step import make_train_step, plan_state, stream_key
from mae_jax.types import Output, UserError
from tests.helpers.plain_method import PlainMethod


class Regression(PlainMethod):
    """A least-squares line through 'image' [B, 1, 1, 4]; its loss is NaN where an image is 255."""

    def init(self, key, batch):
        """Four weights, and a count of updates."""
        return {"kernel": jax.random.normal(key, (4,))}, {"updates": jnp.zeros(())}

    def loss(self, params, extra, batch, key, step):
        """Mean squared error against the sum of the pixels, plus a term that uses the key."""
        x = batch["image"].reshape(-1, 4).astype(jnp.float32)
        error = (x / 10) @ params["kernel"] - x.sum(axis=1)
        bad = jnp.where(jnp.any(x == 255), jnp.nan, 0.0)
        return Output(jnp.mean(error**2) + bad, extra, {"noise": jax.random.uniform(key)})

    def after_update(self, params, extra, step):
        """Counts."""
        return {"updates": extra["updates"] + 1}


def run(mesh, batches, accumulate=1, name="sgd"):
    """States and metrics after each batch."""
    method = Regression()
    tx = make_optimizer(name=name, schedule=lambda step: 0.01 * (step + 1), weight_decay=0.1)
    initial_state, abstract_state = plan_state(mesh, method, tx, {"image": batches[0]}, seed=3)
    step = make_train_step(mesh, abstract_state, method, tx, seed=3, accumulate=accumulate)
    state, seen = initial_state(), []
    for images in batches:
        state, metrics = step(state, put_batch({"image": images}, mesh))
        seen.append(jax.device_get((state, metrics)))
    return seen


@pytest.fixture(scope="module")
def batches():
    return list(np.random.default_rng(0).integers(0, 20, (4, 8, 1, 1, 4)).astype(np.uint8))


def test_every_mesh_gives_the_same(batches):
    one, two = run(make_mesh(data=2), batches), run(make_mesh(fsdp=2), batches)
    for (state, metrics), (other, more) in zip(one, two, strict=True):
        np.testing.assert_allclose(state.params["kernel"], other.params["kernel"], rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], more["loss"], rtol=1e-5)
        assert metrics["noise"] == more["noise"]


def test_accumulation_averages_gradients(batches):
    whole, parts = run(make_mesh(), batches), run(make_mesh(), batches, accumulate=4)
    for (state, metrics), (other, more) in zip(whole, parts, strict=True):
        np.testing.assert_allclose(state.params["kernel"], other.params["kernel"], rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], more["loss"], rtol=1e-5)
        np.testing.assert_allclose(metrics["grad_norm"], more["grad_norm"], rtol=1e-5)


def test_steps_that_are_not_finite_change_nothing_but_the_counts(batches):
    bad = batches[1].copy()
    bad[3, 0, 0, 0] = 255
    states = [s for s, _ in run(make_mesh(), [batches[0], bad, bad, batches[2]], name="adamw")]
    before, first, second, after = states
    for state in (first, second):
        np.testing.assert_array_equal(state.params["kernel"], before.params["kernel"])
        assert state.extra["updates"] == before.extra["updates"]
        moments = lambda s: jax.tree.leaves(s.opt_state)
        for a, b in zip(moments(state), moments(before), strict=True):
            np.testing.assert_array_equal(a, b)
    metrics = [m for _, m in run(make_mesh(), [batches[0], bad, bad, batches[2]], name="adamw")]
    assert [int(m["skipped"]) for m in metrics] == [0, 1, 2, 2]
    assert [int(m["skipped_in_a_row"]) for m in metrics] == [0, 1, 2, 0]
    assert [int(s.step) for s in states] == [1, 2, 3, 4]
    assert (after.params["kernel"] != before.params["kernel"]).all()


def test_a_skipped_step_does_not_shift_the_learning_rate(batches):
    bad = np.full_like(batches[0], 255)
    skipped = run(make_mesh(), [bad, batches[0]])[-1][0].params["kernel"]
    start = run(make_mesh(), [bad])[-1][0].params["kernel"]
    x = batches[0].reshape(-1, 4).astype(np.float64)
    gradient = 2 * (x / 10).T @ ((x / 10) @ start - x.sum(axis=1)) / len(x)
    np.testing.assert_allclose(skipped, start - 0.02 * (gradient + 0.1 * start), rtol=1e-4)


def test_keys_differ_by_seed_stream_and_step():
    keys = [
        stream_key(0, "train", 0),
        stream_key(1, "train", 0),
        stream_key(0, "init", 0),
        stream_key(0, "train", 1),
    ]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4


class Measured(Regression):
    """With a constant [2] that `found` replaces."""

    sample = 2
    found = None

    def init(self, key, batch):
        """As before, with room for it."""
        params, extra = super().init(key, batch)
        return params, extra | {"scale": {"mean": jnp.zeros(2)}}

    def constants(self, sample):
        """What the test says."""
        return self.found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"scale": {"mean": np.ones(3)}}, r"'scale' has .*\(3,\).* but init returned .*\(2,\)"),
        ({"scale": {"std": np.ones(2)}}, "'scale' has the shapes {'std'"),
        ({"scale": np.ones(2)}, r"'scale' has the shapes \(2,\), but"),
        ({"other": np.ones(2)}, r"'other' has the shapes \(2,\), but init returned None"),
        ({}, "a method with `sample` has no constants"),
    ],
)
def test_constants_that_do_not_fit_are_refused_in_one_line(batches, monkeypatch, found, message):
    monkeypatch.setattr(Measured, "found", {"scale": {"mean": np.array([5, 6])}})
    tx = make_optimizer(name="sgd", schedule=lambda step: 0.1)
    options = dict(seed=3, sample=lambda count, fields: {"image": batches[0][:count]})
    initial_state, _ = plan_state(make_mesh(), Measured(), tx, {"image": batches[0]}, **options)
    np.testing.assert_array_equal(initial_state().extra["scale"]["mean"], [5, 6])
    monkeypatch.setattr(Measured, "found", found)
    with pytest.raises(UserError, match=message) as error:
        initial_state()
    assert "\n" not in str(error.value)
