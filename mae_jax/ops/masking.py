"""Which patches to hide: random, block-wise and grid-wise masking (arXiv 2111.06377, section 3
and figure 6).

A strategy gives every patch of every example a score; the patches with the lowest scores stay
visible. Their number is fixed by the ratio alone, so shapes are static and the ratio is always
honoured. Scores are float32 whatever the compute type: bfloat16 noise has ties, which would favour
some positions. To add a strategy, write a function here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mae_jax.types import UserError


class Mask(NamedTuple):
    """Which of the L patches of each example are visible, in the forms that are needed."""

    keep: jax.Array
    """[B, K] int32: the visible patches, in the order in which the encoder sees them."""
    hidden: jax.Array
    """[B, L - K] int32: the masked patches, in the order of their scores."""
    restore: jax.Array
    """[B, L] int32: where each patch stands in [visible, hidden]."""
    mask: jax.Array
    """[B, L] bool: True = hidden."""


def random(key: jax.Array, batch: int, grid: tuple[int, int]) -> jax.Array:
    """Every patch is as likely to be hidden as any other. Returns scores [batch, L]."""
    return jax.random.uniform(key, (batch, grid[0] * grid[1]))


def block(key: jax.Array, batch: int, grid: tuple[int, int], *, blocks: int = 32) -> jax.Array:
    """Hides large rectangles, one after another, until the ratio is reached (after BEiT, arXiv
    2106.08254): areas of 8% to 30% of the image, aspect ratios of 0.3 to 1/0.3. The last
    rectangle is cut where the ratio is reached. Returns scores [batch, L].
    """
    rows, columns = grid
    area_key, aspect_key, place_key, noise_key = jax.random.split(key, 4)
    shape = (batch, blocks, 1)
    area = jax.random.uniform(area_key, shape, minval=0.08, maxval=0.3) * rows * columns
    log_aspect = jax.random.uniform(aspect_key, shape, minval=jnp.log(0.3), maxval=-jnp.log(0.3))
    height = jnp.clip(jnp.round(jnp.sqrt(area * jnp.exp(log_aspect))), 1, rows)
    width = jnp.clip(jnp.round(jnp.sqrt(area / jnp.exp(log_aspect))), 1, columns)
    place = jax.random.uniform(place_key, (2, *shape))
    top = jnp.floor(place[0] * (rows - height + 1))
    left = jnp.floor(place[1] * (columns - width + 1))
    y, x = (axis.reshape(-1) for axis in jnp.mgrid[:rows, :columns])
    covered = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)  # [B, blocks, L]
    first = jnp.where(covered.any(axis=1), jnp.argmax(covered, axis=1), blocks)
    # Within a rectangle the upper rows go first, so that the one that is cut stays in one piece.
    within = jnp.where(
        first < blocks,
        1 - jnp.arange(rows * columns) / (rows * columns),
        jax.random.uniform(noise_key, first.shape),
    )
    return blocks - first + within


def grid(key: jax.Array, batch: int, grid: tuple[int, int]) -> jax.Array:
    """Regular: at a ratio of 0.75 the upper left patch of every 2 x 2 stays visible, at 0.5 a
    checkerboard; ratios between are filled up at random. Returns scores [batch, L].
    """
    y, x = (axis.reshape(-1) % 2 for axis in jnp.mgrid[: grid[0], : grid[1]])
    rank = jnp.array([[0, 2], [3, 1]])[y, x]
    return rank + jax.random.uniform(key, (batch, rank.size))


STRATEGIES: dict[str, Callable[..., jax.Array]] = {"random": random, "block": block, "grid": grid}


def num_visible(length: int, ratio: float) -> int:
    """How many of `length` patches stay visible: floor(length * (1 - ratio)), not all of them
    unless the ratio is 0.

    The small constant repairs products such as 100 * (1 - 0.9) = 9.999...

    Raises:
        UserError: the ratio is outside [0, 1), or leaves nothing visible.
    """
    if not 0 <= ratio < 1:
        raise UserError(f"mask_ratio {ratio} is outside [0, 1): the paper's is 0.75")
    visible = min(int(length * (1 - ratio) + 1e-6), length - (ratio > 0))
    if visible < 1:
        raise UserError(f"mask_ratio {ratio} leaves none of {length} patches visible: lower it")
    return visible


def sample(
    key: jax.Array,
    batch: int,
    grid: tuple[int, int],
    *,
    strategy: str = "random",
    ratio: float = 0.75,
) -> Mask:
    """Draws one mask per example.

    Args:
        key: a key; the masks of a batch are a function of it, on any number of devices.
        batch: number of examples.
        grid: rows and columns of patches.
        strategy: one of `STRATEGIES`.
        ratio: share of hidden patches, in [0, 1).

    Raises:
        UserError: an unknown strategy or an impossible ratio.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"masking {strategy!r} is unknown: choose {', '.join(STRATEGIES)}")
    visible = num_visible(grid[0] * grid[1], ratio)
    return from_scores(STRATEGIES[strategy](key, batch, grid), visible)


def from_scores(scores: jax.Array, visible: int) -> Mask:
    """The mask that keeps the `visible` lowest of scores [B, L]; ties go to the earlier patch.

    XLA removes the second sort if neither `restore` nor `mask` is used.
    """
    order = jnp.argsort(scores, axis=1, stable=True).astype(jnp.int32)
    restore = jnp.argsort(order, axis=1).astype(jnp.int32)
    return Mask(order[:, :visible], order[:, visible:], restore, restore >= visible)
