"""Learning rates and optimizers.

The learning rate is a function of the train state's step, not of a count inside the optimizer, so
that a skipped update does not shift the schedule.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mae_jax.rules import DECAY_MATRICES, Rules, map_rules
from mae_jax.spec import check_choice
from mae_jax.types import UserError

Schedule = Callable[[Any], jax.Array]

MAX_STEPS = 2**31 - 1
"""Largest number of steps: they are counted in int32."""
TINY, HUGE = float(jnp.finfo(jnp.float32).tiny), float(jnp.finfo(jnp.float32).max)


DECAYS = {
    "cosine": lambda progress: 0.5 * (1 + jnp.cos(jnp.pi * progress)),
    "linear": lambda progress: 1 - progress,
    # To a tenth after 8 of 9 parts, and to a hundredth after 26 of 27: detectron2's for ViTDet.
    "steps": lambda progress: (
        10.0 ** -(jnp.float32(progress >= 8 / 9) + jnp.float32(progress >= 26 / 27))
    ),
}
"""How the learning rate falls: (share of the way after the warm-up) -> share of the peak."""


class Plan(NamedTuple):
    """A learning-rate schedule with its resolved numbers."""

    schedule: Schedule
    steps: int
    warmup_steps: int
    peak_lr: float
    decay: str
    """A name of `DECAYS`."""


def make_plan(
    *,
    base_lr: float,
    epochs: float,
    warmup_epochs: float,
    min_lr: float = 0.0,
    decay: str = "cosine",
    batch_size: int,
    num_examples: int,
) -> Plan:
    """Linear warm-up from 0, then a fall to `min_lr`, per step.

    Args:
        base_lr: learning rate per 256 images; the peak is base_lr * batch_size / 256 (arXiv
            1706.02677).
        epochs, warmup_epochs: lengths of run and warm-up, in passes over `num_examples`.
        decay: from the peak to min_lr, a name of `DECAYS`.
        min_lr: learning rate at the end.
        batch_size: global batch size, over all microbatches.

    Raises:
        UserError: see `check_schedule`; or more than `MAX_STEPS` steps.
    """
    check_schedule(
        base_lr=base_lr,
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        min_lr=min_lr,
        decay=decay,
        batch_size=batch_size,
    )
    if epochs * num_examples / batch_size > MAX_STEPS:
        raise UserError(
            f"config.schedule.epochs={epochs} of {num_examples} images are more than {MAX_STEPS} "
            f"steps of {batch_size}: lower it"
        )
    steps = math.ceil(epochs * num_examples / batch_size)
    warmup = round(warmup_epochs * num_examples / batch_size)
    peak = base_lr * batch_size / 256

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - warmup) / max(1, steps - warmup), 0, 1)
        falling = min_lr + (peak - min_lr) * DECAYS[decay](progress)
        return jnp.where(step < warmup, peak * step / max(1, warmup), falling)

    return Plan(schedule, steps, warmup, peak, decay)


def check_schedule(
    *,
    base_lr: float,
    epochs: float,
    warmup_epochs: float,
    min_lr: float = 0.0,
    decay: str = "cosine",
    batch_size: int,
) -> None:
    """Checks the arguments of `make_plan` that do not depend on the number of examples.

    Raises:
        UserError: no epochs, a warm-up longer than the run, or a learning rate that is negative,
            not representable in float32, or above its peak at the end.
    """
    check_choice("config.schedule.decay", decay, DECAYS)
    for name, value in dict(epochs=epochs, warmup_epochs=warmup_epochs, min_lr=min_lr).items():
        if not 0 <= value < math.inf:
            raise UserError(f"config.schedule.{name}={value} must be finite and not negative")
    for name, value in dict(epochs=epochs, base_lr=base_lr).items():
        if not 0 < value < math.inf:
            raise UserError(f"config.schedule.{name}={value} must be positive")
    if warmup_epochs > epochs:
        raise UserError(
            f"config.schedule.warmup_epochs={warmup_epochs} is longer than the run, "
            f"config.schedule.epochs={epochs}: lower it"
        )
    peak = base_lr * batch_size / 256
    if not TINY < peak < HUGE:
        raise UserError(
            f"config.schedule.base_lr={base_lr} * config.data.batch_size={batch_size} / 256 = "
            f"{peak:.3g}, which float32 cannot represent: choose another base_lr"
        )
    if min_lr > peak:
        raise UserError(
            f"config.schedule.min_lr={min_lr} is above the peak learning rate, {peak:.3g} = "
            f"config.schedule.base_lr={base_lr} * config.data.batch_size={batch_size} / 256: "
            "lower min_lr"
        )


def make_optimizer(
    *,
    name: str = "adamw",
    schedule: Schedule,
    rules: Rules = DECAY_MATRICES,
    weight_decay: float = 0.05,
    b1: float = 0.9,
    b2: float = 0.95,
    clip: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose `update` takes the step as an extra argument.

    Args:
        name: 'adamw' (arXiv 1711.05101, decay times learning rate), 'sgd' or 'lars' (arXiv
            1708.03888). SGD's weight decay is decoupled from its momentum, like AdamW's, and so
            about 1 / (1 - b1) times weaker than PyTorch's.
        schedule: step -> learning rate.
        rules: (regex, (lr factor, decay factor)) over parameter paths, with the step from which on
            they learn as an optional third number, or (regex, None) for frozen parameters, which
            have no moments.
        weight_decay: weight decay, times the decay factor of `rules`.
        b1: decay of Adam's first moment; the momentum of SGD and LARS.
        b2: decay of Adam's second moment.
        clip: largest global gradient norm; None: no clipping.

    Raises:
        UserError: an unknown name.
    """
    scalers = {
        "adamw": lambda: optax.scale_by_adam(b1, b2),
        "sgd": lambda: optax.trace(b1),
        "lars": lambda: _scale_by_lars(weight_decay, b1, rules),
    }
    check_choice("optimizer", name, scalers)
    if not (0 <= b1 < 1 and 0 <= b2 < 1) or weight_decay < 0 or (clip is not None and clip <= 0):
        raise UserError(
            f"optimizer: b1={b1} and b2={b2} must be in [0, 1), weight_decay={weight_decay} not "
            f"negative and clip={clip} positive or None"
        )
    tx = optax.chain(
        optax.clip_by_global_norm(clip) if clip is not None else optax.identity(),
        scalers[name](),
        _descend(schedule, 0.0 if name == "lars" else weight_decay, rules),
    )
    label = lambda params: jax.tree.map(
        lambda factors: "train" if factors else "frozen",
        map_rules(params, rules),
        is_leaf=lambda x: x is None or isinstance(x, tuple),
    )
    return optax.partition({"train": tx, "frozen": optax.set_to_zero()}, label)


def _scale_by_lars(weight_decay: float, momentum: float, rules: Rules):
    """LARS as in the official linear probes: weight decay, the trust ratio .001 |parameter| /
    |update|, momentum, and then the learning rate. Vectors are neither decayed nor scaled.
    `optax.lars` applies the learning rate before the momentum, and scales vectors too.
    """
    matrices = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)

    def decay(updates, state, params, **unused):
        add = lambda u, p, factors: u + weight_decay * factors[1] * p if u.ndim > 1 else u
        return jax.tree.map(add, updates, params, map_rules(updates, rules)), state

    return optax.chain(
        optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), decay),
        optax.masked(optax.scale_by_trust_ratio(trust_coefficient=0.001), matrices),
        optax.trace(momentum),
    )


def _descend(schedule: Schedule, weight_decay: float, rules: Rules):
    """-lr(step) * lr factor * (update + weight decay * decay factor * parameter), and 0 before the
    first step of a rule that has one. Moments follow the gradients from the start.
    """

    def update(updates, state, params, *, step, **unused):
        lr = schedule(step)

        def move(u, p, factors):
            moved = -lr * factors[0] * (u + weight_decay * factors[1] * p)
            return jnp.where(step >= factors[2], moved, 0) if len(factors) == 3 else moved

        factors = map_rules(updates, rules)
        return jax.tree.map(move, updates, params, factors), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
