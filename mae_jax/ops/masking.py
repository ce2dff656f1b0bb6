"""Masks of patches from scores (arXiv 2111.06377, section 3): the patches with the lowest scores
stay visible. Their number is fixed by the ratio alone, so shapes are static and the ratio is always
exact. Which scores there are is the business of `mae_jax.masks`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mae_jax.types import UserError


class Mask(NamedTuple):
    """Which of the L patches of each example are visible, in the forms that are needed."""

    keep: jax.Array
    """[B, K] int32: the visible patches, in the order in which the encoder sees them."""
    masked: jax.Array
    """[B, L - K] int32: the masked patches, in the order of their scores."""
    restore: jax.Array
    """[B, L] int32: the place of each patch in [visible, masked]."""
    mask: jax.Array
    """[B, L] bool: True = masked."""


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


def from_scores(scores: jax.Array, visible: int) -> Mask:
    """The mask that keeps the `visible` lowest of scores [B, L]; ties go to the earlier patch.

    XLA removes the second sort if neither `restore` nor `mask` is used.
    """
    order = jnp.argsort(scores, axis=1, stable=True).astype(jnp.int32)
    restore = jnp.argsort(order, axis=1).astype(jnp.int32)
    return Mask(order[:, :visible], order[:, visible:], restore, restore >= visible)
