"""Block-wise masks (after BEiT, arXiv 2106.08254), in any number of dimensions."""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp

from mae_jax.masks import MaskContext, Strategy
from mae_jax.types import UserError

VOLUME = (0.08, 0.3)
"""Share of the image that a block has before its sides are rounded and clipped to the grid, drawn
uniformly."""
ASPECT = 0.3
"""Aspect ratios are from this one to 1 over it, before that, their logarithms drawn uniformly."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block(Strategy):
    """Masks large rectangles (intervals, boxes), one after another, until the ratio is reached. The
    last one is cut where the ratio is reached.
    """

    blocks: int
    """The most that are drawn for an example; what they leave is masked at random."""

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        grid, length, rank = context.grid, context.length, len(context.grid)
        volume_key, aspect_key, place_key, noise_key = jax.random.split(key, 4)
        shape = (context.batch, self.blocks, 1)
        volume = jax.random.uniform(volume_key, shape, minval=VOLUME[0], maxval=VOLUME[1])
        volume = functools.reduce(operator.mul, grid, volume)  # in patches
        place = jax.random.uniform(place_key, (rank, *shape))
        covered = True
        at = jnp.indices(grid).reshape(rank, -1)
        for axis, side in enumerate(_sides(aspect_key, volume, rank)):
            side = jnp.clip(jnp.round(side), 1, grid[axis])
            start = jnp.floor(place[axis] * (grid[axis] - side + 1))
            covered &= (at[axis] >= start) & (at[axis] < start + side)  # [B, blocks, L]
        first = jnp.where(covered.any(axis=1), jnp.argmax(covered, axis=1), self.blocks)
        # Within a block the first rows go first, so that the one that is cut stays in one piece.
        within = jnp.where(
            first < self.blocks,
            1 - jnp.arange(length) / length,
            jax.random.uniform(noise_key, first.shape),
        )
        return self.blocks - first + within


def _sides(key: jax.Array, volume: jax.Array, rank: int) -> list[jax.Array]:
    """Sides of blocks of a volume [B, blocks, 1] along each axis, of that shape. The aspect ratio
    of a rectangle is that of its sides, height to width. In n dimensions there is one for each side
    but the last, the nth power of its ratio to the side of a cube; the last makes up for them.
    """
    limit = -jnp.log(ASPECT)
    drawn = jax.random.uniform(key, (rank - 1, *volume.shape), minval=-limit, maxval=limit)
    last, sides = volume, []
    for aspect in jnp.exp(drawn):
        sides.append(volume * aspect)
        last = last / aspect
    return [jnp.sqrt(x) if rank == 2 else x ** (1 / rank) for x in (*sides, last)]


def make(*, blocks: int = 32) -> Block:
    """Masks large blocks: of 8% to 30% of the image and, in two dimensions, with aspect ratios of
    0.3 to 1/0.3, before they are rounded and clipped to the grid; see `_sides` for more dimensions.

    Args:
        blocks: the most that are drawn for an example.

    Raises:
        UserError: no blocks.
    """
    if blocks < 1:
        raise UserError(f"mask block: blocks={blocks} must be at least 1")
    return Block(blocks=blocks)
