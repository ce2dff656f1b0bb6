"""The moving average of the encoder as a teacher, against float64 numpy (data2vec)."""

import dataclasses

import jax
import numpy as np
import pytest

from mae_jax.methods import mae
from mae_jax.types import UserError
from tests.targets.test_teacher import standardized

ENCODER = "vit(width=8, depth=3, heads=1, patch=4)"
SMALL = dict(encoder=ENCODER, decoder_width=8, decoder_depth=1, decoder_heads=1)
SMALL |= dict(mean=(0.4,), std=(0.3,))
TARGET = "ema(blocks=2, decay=0.9, end=0.99)"
KEY = jax.random.key(0)


def made(target=TARGET, loss="smooth_l1(beta=0.5)", **changes):
    """A method of 20 steps."""
    method = mae.make(**{**SMALL, **changes}, target=target, loss=loss)
    return dataclasses.replace(method, total_steps=20)


@pytest.fixture(scope="module")
def computed():
    """All that one compiled function returns of a method and its images."""
    method = made()
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)

    @jax.jit
    def run():
        params, extra = method.init(KEY, {"image": images})
        # Another teacher than the encoder, as after some steps.
        teacher = jax.tree.map(lambda x: 1.5 * x, extra["target"]["encoder"])
        moved = {"target": {"encoder": teacher}}
        mask = method.draw_mask(KEY, images)
        output = method.loss(params, moved, {"image": images}, KEY, 0)
        apply = lambda weights: method.encoder.apply(
            {"params": weights}, method.normalize(images), method="maps"
        )
        return dict(
            params=params,
            extra=extra,
            output=output,
            prediction=method.reconstruct_for_loss(params, images, mask),
            masked=mask.masked,
            maps=apply(teacher),
            teacher=teacher,
            updates=[method.after_update(params, moved, step) for step in (0, 10, 20)],
            loaded=method.after_load(params, moved),
        )

    return jax.device_get(run())


def test_the_teacher_starts_as_the_encoder(computed):
    """At the first step, and after other weights were loaded."""
    for extra in (computed["extra"], computed["loaded"]):
        assert extra.keys() == {"target"}
        jax.tree.map(
            np.testing.assert_array_equal, extra["target"]["encoder"], computed["params"]["encoder"]
        )


def test_the_loss_is_that_of_data2vec(computed):
    """Smooth L1 to the normalized mean of the teacher's last two of three blocks."""
    first, *_ = maps = [np.asarray(x, np.float64).reshape(2, 6, 8) for x in computed["maps"]]
    tokens = np.mean(maps[1:], axis=0)
    assert np.abs(first - tokens).max() > 1e-2
    target = standardized(tokens)
    target = np.take_along_axis(target, computed["masked"][:, :, None], axis=1)  # [2, K, 8]
    difference = np.abs(computed["prediction"] - target)
    errors = np.where(difference < 0.5, difference**2, difference - 0.25)
    assert (difference < 0.5).any() and (difference > 0.5).any()
    np.testing.assert_allclose(computed["output"].loss, errors.mean(), rtol=1e-4)
    spread = target.std(axis=(0, 1)).mean()
    np.testing.assert_allclose(computed["output"].metrics["target_std"], spread, rtol=1e-4)


def test_the_decay_rises_linearly(computed):
    leaf = lambda tree: np.asarray(tree["block_1"]["mlp"]["fc1"]["kernel"], np.float64)
    old, new = leaf(computed["teacher"]), leaf(computed["params"]["encoder"])
    for decay, update in zip((0.9, 0.945, 0.99), computed["updates"], strict=True):
        found = leaf(update["target"]["encoder"])
        np.testing.assert_allclose(found, decay * old + (1 - decay) * new, rtol=1e-5, atol=1e-7)


def test_it_cannot_be_loaded_or_drawn():
    method = made()
    assert list(method.loads()) == ["params/encoder"]
    assert method.pictures() is None
    assert made("ema(blocks=0)", loss="mse").target.width((4, 4), 3) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(target="ema"), r"ema\(blocks=6\): the encoder has 3: choose 0, for its output, to 3"),
        (dict(target="ema(blocks=-1)"), "blocks must be at least 0"),
        (dict(target="ema(blocks=1, decay=0.9999, end=0.9)"), "0 <= decay <= end <= 1"),
        (dict(loss="smooth_l1(beta=0)"), r"smooth_l1\(beta=0\) must be positive"),
        (dict(loss="smooth_l1(alpha=1)"), "there is no 'alpha'"),
        (dict(loss="cross_entropy"), "loss 'cross_entropy' is unknown: choose mse, l1, smooth_l1"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        made(**changes)
