"""Tube masking of clips (VideoMAE, arXiv 2203.12602, section 3.3), "space-only" in MAE_ST (arXiv
2205.09113): the same positions are masked at all times, so that no patch can be copied from the
frames around it.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from mae_jax.masks import MaskContext, Wrapped, checked_scores, make_strategy, ranked
from mae_jax.ops.masking import num_visible
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tube(Wrapped):
    """Masks whole tubes: patches at one position, along all of the first axis. Which tubes, another
    strategy decides, on the grid of the other axes.
    """

    def visible(self, grid: tuple[int, ...], ratio: float) -> int:
        """floor(N (1 - ratio)) of the N tubes.

        Raises:
            UserError: as in `Strategy`, or a grid of one axis.
        """
        if len(grid) < 2:
            raise UserError(
                f"mask tube: a grid of {grid[0]} patches has one axis, and tubes are of clips and "
                "volumes, along the first of several: choose mask='random'"
            )
        return grid[0] * num_visible(math.prod(grid[1:]), ratio)

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        frame = dataclasses.replace(context, grid=context.grid[1:])
        ranks = ranked(checked_scores(key, self.strategy, frame))  # [B, N]
        return jnp.tile(ranks, context.grid[0])  # [B, L], the first axis is the slowest


def make(tubes: str = "random") -> Tube:
    """Tube masking: the same mask at every step of the first axis.

    Args:
        tubes: strategy that selects the tubes on the grid of the other axes, e.g. 'random' or
            'block(blocks=8)'.

    Raises:
        UserError: an unknown strategy.
    """
    return Tube(strategy=make_strategy(tubes))
