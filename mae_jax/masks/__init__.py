"""Masking strategies, one per file. Its `make(**options)` returns a `Strategy`.

A config selects one by a spec string: mask='random', mask='block(blocks=16)'. All take `unit`, too,
the side of what is masked as one: mask='random(unit=2)', see `Units`.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mae_jax.extensions import check_made
from mae_jax.ops import masking
from mae_jax.ops.patches import one_or_all
from mae_jax.spec import Call, build, call, maker, parse
from mae_jax.types import UserError

Constants = Any
"""A pytree of arrays that a strategy needs besides the batch; {} if none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskContext:
    """The inputs of a strategy: the batch, the progress of the run, and what the method offers."""

    grid: tuple[int, ...]
    """Number of patches along each axis; their product is L."""
    batch: int
    """Number of examples B."""
    step: jax.Array | int = 0
    total_steps: int = 1
    """Length of the run."""
    images: jax.Array | None = None
    """[B, *space, C] as in the batch, usually uint8; None if there are no images."""
    mask_ratio: float = 0.0
    """Fraction of masked patches, in [0, 1); `sample` sets it."""
    normalize: Callable[[jax.Array], jax.Array] | None = None
    """Normalizes images as the method's encoder needs them; None if there is none."""
    constants: Constants = dataclasses.field(default_factory=dict)
    """The strategy's constants, see `Strategy.initial`."""
    guide: Callable[[], jax.Array] | None = None
    """Computes scores [B, *grid] of the method's own, which a strategy may use: higher for patches
    that are harder to predict. Their grid is the method's, also for `Units`. None: it has none."""

    @property
    def length(self) -> int:
        """Number of patches L."""
        return math.prod(self.grid)

    @property
    def masked(self) -> int:
        """Number of masked patches."""
        return self.length - masking.num_visible(self.length, self.mask_ratio)


class Strategy(abc.ABC):
    """Base class of masking strategies. Subclasses are frozen, `kw_only` dataclasses."""

    @abc.abstractmethod
    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """Scores every patch; those with the lowest scores stay visible.

        Args:
            key: the only source of randomness; masks must not depend on the number of devices.
            context: see `MaskContext`.

        Returns:
            [B, L] float32, also in bfloat16 runs: bfloat16 noise has ties, which would favor some
            positions.
        """

    def visible(self, grid: tuple[int, ...], ratio: float) -> int:
        """Number of patches that stay visible: floor(L (1 - ratio)). A strategy that masks whole
        rows, frames, ... may round to whole ones.

        Args:
            grid: number of patches along each axis.
            ratio: fraction of masked patches, in [0, 1).

        Raises:
            UserError: the ratio is outside [0, 1), or leaves nothing visible.
        """
        return masking.num_visible(math.prod(grid), ratio)

    def initial(self, images: jax.Array) -> Constants:
        """Constants, which `MaskContext` then holds: arrays that checkpoints must have, such as the
        parameters of a teacher.

        Args:
            images: [B, *space, C] uint8, of which only the shape counts.
        """
        return {}

    def teachers(self) -> Mapping[str, Any]:
        """Constants that are the parameters of an encoder, which `init_from` may load into
        'extra/mask/NAME': name -> its Flax module.
        """
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrapped(Strategy):
    """Base class of strategies that apply another one to another grid, with its constants."""

    strategy: Strategy

    def initial(self, images: jax.Array) -> Constants:
        """Those of the strategy."""
        return self.strategy.initial(images)

    def teachers(self) -> Mapping[str, Any]:
        """Those of the strategy."""
        return self.strategy.teachers()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Units(Wrapped):
    """Masks units of several patches with any strategy, which scores the units as the patches of a
    coarser grid. Larger units are harder to fill in from their neighbors (SimMIM, arXiv 2111.09886;
    Pixio, arXiv 2512.15715).

    If the number of visible patches is no multiple of a unit's, one unit is masked in part: its
    first patches stay visible.
    """

    unit: int | Sequence[int]
    """Side of a unit in patches, or one side for each axis."""

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        grid, sides = context.grid, one_or_all(self.unit)
        if len(sides) == 1:
            sides *= len(grid)
        if len(sides) != len(grid) or any(n % side for n, side in zip(grid, sides, strict=True)):
            raise UserError(
                f"mask unit={self.unit} does not divide the grid of {' x '.join(map(str, grid))} "
                "patches: give a divisor of all its sides, or one divisor for each axis"
            )
        coarse = tuple(n // side for n, side in zip(grid, sides, strict=True))
        scores = checked_scores(key, self.strategy, dataclasses.replace(context, grid=coarse))
        ranks = ranked(scores).reshape(-1, *coarse)  # [B, units] to [B, *coarse]
        for axis, side in enumerate(sides, start=1):
            ranks = jnp.repeat(ranks, side, axis=axis)
        return ranks.reshape(context.batch, context.length)  # [B, *grid] to [B, L]


def make_strategy(text: str) -> Strategy:
    """Builds the strategy of a spec string. Every strategy, also one of the user's own, takes the
    argument `unit`, see `Units`; its `make` does not see it.

    Args:
        text: e.g. 'random', 'block(blocks=16)', 'my_project.mask(width=2, unit=(1, 2))'.

    Raises:
        UserError: an unknown name, or an unknown or invalid argument.
    """
    match parse(text):
        case [Call(name, args, {"unit": unit, **kwargs})]:
            made = call(text, maker(name, "masks", Strategy), *args, **kwargs)
            units = call(text, Units, strategy=check_made(made, Strategy, name), unit=unit)
            if not one_or_all(unit) or min(one_or_all(unit)) < 1:
                raise UserError(f"{text}: unit={unit} must be at least 1 along each axis")
            return units
    return build(text, "masks", Strategy)


def sample(key: jax.Array, strategy: Strategy, context: MaskContext, ratio: float) -> masking.Mask:
    """Draws one mask per example; `strategy.visible` of its L patches stay visible.

    Args:
        key: source of randomness.
        strategy: computes the scores.
        context: see `MaskContext`; its `mask_ratio` is set here.
        ratio: fraction of masked patches, in [0, 1).

    Raises:
        UserError: an invalid ratio, or scores of another shape than [B, L].
    """
    visible = strategy.visible(context.grid, ratio)
    context = dataclasses.replace(context, mask_ratio=ratio)
    return masking.from_scores(checked_scores(key, strategy, context), visible)


def checked_scores(key: jax.Array, strategy: Strategy, context: MaskContext) -> jax.Array:
    """The scores of a strategy, [B, L].

    Raises:
        UserError: they have another shape.
    """
    scores = strategy.score(key, context)
    if scores.shape != (context.batch, context.length):
        raise UserError(
            f"mask {type(strategy).__module__}: scores have the shape {list(scores.shape)} and "
            f"must be [B, L] = {[context.batch, context.length]}, of a grid of {context.grid}"
        )
    return scores


def ranked(scores: jax.Array) -> jax.Array:
    """Ranks [B, N] float32, from 0, of the scores [B, N] of units, frames, ...: the patches of two
    of them with equal scores must not mix.
    """
    ranks = jnp.argsort(jnp.argsort(scores, axis=1, stable=True), axis=1)
    return ranks.astype(jnp.float32)
