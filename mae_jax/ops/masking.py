"""Masks of patches from scores (arXiv 2111.06377, section 3): the patches with the lowest scores
stay visible. The mask ratio determines their number, so shapes are static and the ratio is exact
for every example. The strategies that compute scores are in `mae_jax.masks`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mae_jax.ops.patches import patch_sides
from mae_jax.types import UserError

ROUNDING = 1e-4
"""Added to products of a share and a number of patches before they are rounded down in float32."""


class Mask(NamedTuple):
    """The mask of a batch with L patches per example, K of them visible."""

    keep: jax.Array
    """[B, K] int32: indices of the visible patches, in the order in which the encoder sees them."""
    masked: jax.Array
    """[B, L - K] int32: indices of the masked patches, in the order of their scores, or `shuffled`;
    fewer where only a subset is predicted."""
    restore: jax.Array
    """[B, L] int32: position of each patch in [keep, masked], the inverse permutation of it."""
    mask: jax.Array
    """[B, L] bool: True for masked patches."""


def num_visible(length: int, ratio: float) -> int:
    """Number of visible patches: floor(length * (1 - ratio)), and less than `length` unless the
    ratio is 0.

    Args:
        length: number of patches L.
        ratio: fraction of masked patches, in [0, 1).

    Raises:
        UserError: the ratio is outside [0, 1), or leaves nothing visible.
    """
    if not 0 <= ratio < 1:
        raise UserError(f"mask_ratio {ratio} is outside [0, 1): the paper's is 0.75")
    # The constant corrects rounding in products such as 100 * (1 - 0.9) = 9.999...
    visible = min(int(length * (1 - ratio) + 1e-6), length - (ratio > 0))
    if visible < 1:
        raise UserError(f"mask_ratio {ratio} leaves none of {length} patches visible: lower it")
    return visible


def from_scores(scores: jax.Array, visible: int) -> Mask:
    """The mask that keeps the `visible` lowest scores of [B, L]; ties go to the earlier patch."""
    order = jnp.argsort(scores, axis=1, stable=True).astype(jnp.int32)
    # The inverse permutation. XLA removes this sort if neither `restore` nor `mask` is used.
    restore = jnp.argsort(order, axis=1).astype(jnp.int32)
    return Mask(order[:, :visible], order[:, visible:], restore, restore >= visible)


def shuffled(key: jax.Array, mask: Mask) -> Mask:
    """The same mask with its masked patches in random order, so that the first ones are a random
    subset.
    """
    order = jnp.argsort(jax.random.uniform(key, mask.masked.shape), axis=1)
    masked = jnp.take_along_axis(mask.masked, order, axis=1)  # [B, L - K]
    restore = jnp.argsort(jnp.concatenate([mask.keep, masked], axis=1), axis=1)
    return mask._replace(masked=masked, restore=restore.astype(jnp.int32))


def guided(
    key: jax.Array, guide: jax.Array, count: jax.Array | int, *, hint: float = 0.0
) -> jax.Array:
    """Scores that mask the patches that a guide scores highest, and others at random.

    As only scores depend on `count`, the number of visible patches stays static when it is traced.
    If fewer than `count` patches are masked, which ones of these is random.

    Args:
        key: source of randomness.
        guide: [B, L]; ties go to the later patch.
        count: number of patches that the guide chooses, in [0, L].
        hint: share of these that stays visible, drawn at random, in [0, 1); as many others are
            masked instead (the hints of AttMask, arXiv 2203.12719).

    Returns:
        [B, L] float32: in [0, 1) where the choice is random, higher where the guide chooses, and
        below 0 for hints.
    """
    noise = jax.random.uniform(key, guide.shape)
    ranks = jnp.argsort(jnp.argsort(guide, axis=1, stable=True), axis=1)
    chosen = ranks >= guide.shape[1] - count
    scores = noise + 2 * chosen
    if not hint:
        return scores
    # The chosen patches with the lowest noise, which is uniform.
    order = jnp.argsort(jnp.argsort(jnp.where(chosen, noise, 2), axis=1), axis=1)
    return scores - 4 * (order < jnp.floor(hint * count + ROUNDING))


def apply_mask(x: jax.Array, visible: jax.Array | None) -> jax.Array:
    """Zeroes x [B, *space, C] where `visible` [B, *space, 1] is False; None: all is visible."""
    return x if visible is None else jnp.where(visible, x, 0)


def upsample_mask(visible: jax.Array | None, factor: int | Sequence[int]) -> jax.Array | None:
    """Upsamples a mask [B, *space, 1]: repeats every position `factor` times along each axis."""
    if visible is None:
        return None
    for axis, count in enumerate(patch_sides(factor, visible.ndim - 2), start=1):
        visible = visible.repeat(count, axis=axis)
    return visible
