"""Masking of whole frames of clips, called time-only in MAE_ST (arXiv 2205.09113, section 3) and
frame masking in VideoMAE (arXiv 2203.12602).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from mae_jax.masks import MaskContext, Strategy, ranked
from mae_jax.ops.masking import num_visible


@dataclasses.dataclass(frozen=True, kw_only=True)
class Time(Strategy):
    """Masks all patches of random steps of the first axis."""

    def visible(self, grid: tuple[int, ...], ratio: float) -> int:
        """All patches of floor(T (1 - ratio)) of the T steps."""
        return num_visible(grid[0], ratio) * math.prod(grid[1:])

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        steps = context.grid[0]
        ranks = ranked(jax.random.uniform(key, (context.batch, steps)))  # [B, T]
        return jnp.repeat(ranks, context.length // steps, axis=1)  # [B, L]


def make() -> Time:
    """Masks whole steps of the first axis: frames of a clip in groups of the patch's length, or
    slices of a volume.
    """
    return Time()
