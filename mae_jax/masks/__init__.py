"""Masking strategies, one per file. Its `make(**options)` returns a `Strategy`.

A config selects one by a spec string: mask='random', mask='block(blocks=16)'.
"""

import abc
import dataclasses
import math

import jax

from mae_jax.ops import masking
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskContext:
    """The inputs of a strategy: the batch, and the progress of the run."""

    grid: tuple[int, ...]
    """Number of patches along each axis; their product is L."""
    batch: int
    """Number of examples B."""
    step: jax.Array | int = 0
    total_steps: int = 1
    """Length of the run."""
    images: jax.Array | None = None
    """[B, *space, C] as in the batch, usually uint8; None if there are no images."""

    @property
    def length(self) -> int:
        """Number of patches L."""
        return math.prod(self.grid)


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


def sample(key: jax.Array, strategy: Strategy, context: MaskContext, ratio: float) -> masking.Mask:
    """Draws one mask per example; floor(L (1 - ratio)) of its L patches stay visible.

    Args:
        key: source of randomness.
        strategy: computes the scores.
        context: see `MaskContext`.
        ratio: fraction of masked patches, in [0, 1).

    Raises:
        UserError: an invalid ratio, or scores of another shape than [B, L].
    """
    visible = masking.num_visible(context.length, ratio)
    scores = strategy.score(key, context)  # [B, L]
    if scores.shape != (context.batch, context.length):
        raise UserError(
            f"mask {type(strategy).__module__}: scores have the shape {list(scores.shape)} and "
            f"must be [B, L] = {[context.batch, context.length]}, of a grid of {context.grid}"
        )
    return masking.from_scores(scores, visible)
