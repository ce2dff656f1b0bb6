"""Which patches to mask: one strategy a file, whose `make(**options)` returns a `Strategy`.

A config names one by a spec string: mask='random', mask='block(blocks=16)'.
"""

import abc
import dataclasses
import math

import jax

from mae_jax.ops import masking
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskContext:
    """What a strategy may look at."""

    grid: tuple[int, ...]
    """Number of patches along each axis; their product is L."""
    batch: int
    """Number of examples, B."""
    step: jax.Array | int = 0
    total_steps: int = 1
    """Length of the run."""
    images: jax.Array | None = None
    """[B, *space, C] as in the batch, usually uint8; None where no images exist."""

    @property
    def length(self) -> int:
        """Number of patches L."""
        return math.prod(self.grid)


class Strategy(abc.ABC):
    """A way to choose masked patches: derive a frozen, `kw_only` dataclass from it."""

    @abc.abstractmethod
    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """A score of every patch: the lowest stay visible.

        Args:
            key: the only source of randomness; masks must not depend on the number of devices.
            context: of the batch.

        Returns:
            [B, L] float32 whatever the compute type: bfloat16 noise has ties, which would favor
            some positions.
        """


def sample(key: jax.Array, strategy: Strategy, context: MaskContext, ratio: float) -> masking.Mask:
    """Draws one mask per example: floor(L (1 - ratio)) of all L patches stay visible.

    Args:
        ratio: share of masked patches, in [0, 1).

    Raises:
        UserError: an impossible ratio, or scores of another shape.
    """
    visible = masking.num_visible(context.length, ratio)
    scores = strategy.score(key, context)
    if scores.shape != (context.batch, context.length):
        raise UserError(
            f"mask {type(strategy).__module__}: scores have the shape {list(scores.shape)} and "
            f"must be [B, L] = {[context.batch, context.length]}, of a grid of {context.grid}"
        )
    return masking.from_scores(scores, visible)
