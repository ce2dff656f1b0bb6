"""Block-wise masking (after BEiT, arXiv 2106.08254), in any number of dimensions."""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp

from mae_jax.masks import MaskContext, Strategy
from mae_jax.types import UserError

VOLUME = (0.08, 0.3)
"""Range of a block's volume as a fraction of the image, uniform, before rounding and clipping."""
ASPECT = 0.3
"""Aspect ratios are log-uniform in [ASPECT, 1 / ASPECT], before rounding and clipping."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block(Strategy):
    """Masks large rectangles (in 1-D intervals, in 3-D boxes), one after another, until the mask
    ratio is reached. The last block is cut to reach it exactly.
    """

    blocks: int
    """Maximum number of blocks per example. If they do not reach the ratio, the rest is random."""

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        grid, length, rank = context.grid, context.length, len(context.grid)
        volume_key, aspect_key, place_key, noise_key = jax.random.split(key, 4)
        shape = (context.batch, self.blocks, 1)
        volume = jax.random.uniform(volume_key, shape, minval=VOLUME[0], maxval=VOLUME[1])
        volume = functools.reduce(operator.mul, grid, volume)  # in patches, [B, blocks, 1]
        corner = jax.random.uniform(place_key, (rank, *shape))
        covered = True
        at = jnp.indices(grid).reshape(rank, -1)  # [rank, L]
        for axis, side in enumerate(_sides(aspect_key, volume, rank)):
            side = jnp.clip(jnp.round(side), 1, grid[axis])
            start = jnp.floor(corner[axis] * (grid[axis] - side + 1))
            covered &= (at[axis] >= start) & (at[axis] < start + side)  # [B, blocks, L]
        # [B, L]: the first block that covers a patch. Earlier blocks get higher scores: masked.
        first = jnp.where(covered.any(axis=1), jnp.argmax(covered, axis=1), self.blocks)
        # Within a block, first rows are masked first, so that a block that is cut stays connected.
        within = jnp.where(
            first < self.blocks,
            1 - jnp.arange(length) / length,
            jax.random.uniform(noise_key, first.shape),
        )
        return self.blocks - first + within


def _sides(key: jax.Array, volume: jax.Array, rank: int) -> list[jax.Array]:
    """Random sides of blocks of the given volume [B, blocks, 1], of this shape for each axis.

    In two dimensions the aspect ratio is height / width. In n dimensions each side but the last has
    its own ratio, (side / side of a cube of this volume)^n; the last follows from the volume.
    """
    limit = -jnp.log(ASPECT)
    log_aspects = jax.random.uniform(key, (rank - 1, *volume.shape), minval=-limit, maxval=limit)
    last, sides = volume, []
    for aspect in jnp.exp(log_aspects):
        sides.append(volume * aspect)
        last = last / aspect
    return [jnp.sqrt(x) if rank == 2 else x ** (1 / rank) for x in (*sides, last)]


def make(*, blocks: int = 32) -> Block:
    """Block-wise masking: blocks of 8% to 30% of the image with aspect ratios from 0.3 to 1/0.3,
    before they are rounded and clipped to the grid.

    Args:
        blocks: maximum number of blocks per example, at least 1.

    Raises:
        UserError: `blocks` is less than 1.
    """
    if blocks < 1:
        raise UserError(f"mask block: blocks={blocks} must be at least 1")
    return Block(blocks=blocks)
