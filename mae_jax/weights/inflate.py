"""Fits the weights of an encoder of images to clips or volumes, and the reverse, as in MAE_ST
(arXiv 2205.09113): the kernel of the patch embedding is spread over time, or summed over it, and
positions of space are kept, with zeros for time.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from mae_jax.models.encoder import Encoder
from mae_jax.models.vit import ViT
from mae_jax.ops.patches import grid_of, patch_sides

logger = logging.getLogger(__name__)

HOW = ("mean", "center")
"""Where the kernel of an image goes in a patch of several frames: into each frame, divided by their
number, so that a clip of equal frames has the embedding of the image; or into the middle frame."""
LEARNED = ("positions", "positions_space", "positions_time", "positions_class")


def differs_in_rank(
    old: Encoder, new: Encoder, before: Sequence[int] | None, after: Sequence[int] | None
) -> bool:
    """Whether one of two ViTs is of images and the other of clips or volumes, with equal patches in
    space, and they differ in nothing else but positions.

    Args:
        old, new: the encoder of the weights, and that to load into.
        before, after: [*space, C] of their images; None: not known.
    """
    if not (isinstance(old, ViT) and isinstance(new, ViT)) or not before or not after:
        return False
    ranks = len(before) - 1, len(after) - 1
    if sorted(ranks) != [2, 3]:
        return False
    sides = [patch_sides(one.patch, rank) for one, rank in zip((old, new), ranks, strict=True)]
    same = old.clone(patch=new.patch, positions=new.positions, spacing=new.spacing)
    return sides[0][-2:] == sides[1][-2:] and same.architecture == new.architecture


def inflated(
    saved: Mapping[str, np.ndarray],
    old: ViT,
    new: ViT,
    before: Sequence[int],
    after: Sequence[int],
    *,
    how: str,
    path: str,
) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """The arrays of an encoder for images of another rank, and reports it.

    Args:
        saved: arrays of the encoder, by paths in it.
        old, new, before, after: see `differs_in_rank`.
        how: one of `HOW`, from images to clips.
        path: of the weights, for the report.

    Returns:
        The arrays, and the shape [*space, C] of images with as many patches.
    """
    up = len(after) > len(before)
    kernel = saved["embed/kernel"]
    if up:
        steps = patch_sides(new.patch, 3)[0]
        kernel = kernel_of_clips(kernel, steps, how)
        shape = (after[0], *before)
    else:
        steps = patch_sides(old.patch, 3)[0]
        kernel = kernel.reshape(steps, -1, kernel.shape[1]).sum(axis=0)  # [T, p p C, D]
        shape = before[1:]
    arrays = {name: array for name, array in saved.items() if name not in LEARNED}
    places = _positions(saved, old, new, before, shape) if up else _flattened(saved, old, before)
    kept = new.positions == "separable" or new.learned_positions
    logger.warning(
        "the encoder in %s is of %s: its patch embedding is %s, and positions of space are %s",
        path,
        "images" if up else "clips or volumes",
        f"spread over {steps} frames ({how})" if up else f"summed over {steps} frames",
        "kept" if kept else f"those of positions={new.positions} here, not the old ones",
    )
    return arrays | {"embed/kernel": kernel} | (places if kept else {}), shape


def kernel_of_clips(kernel: np.ndarray, steps: int, how: str) -> np.ndarray:
    """The kernel [T * p * p * C, D] of patches of T frames from one [p * p * C, D] of images."""
    frames = np.zeros((steps, *kernel.shape), np.float32)
    if how == "mean":
        frames[:] = kernel / steps
    else:
        frames[steps // 2] = kernel
    return frames.reshape(-1, kernel.shape[1])


def _table(saved: Mapping[str, np.ndarray], old: ViT, before: Sequence[int]) -> np.ndarray:
    """Positions [prefix + L, D], trained or fixed."""
    if "positions" in saved:
        return np.asarray(saved["positions"])
    return old.table(grid_of(before[:-1], old.patch))


def _positions(saved, old: ViT, new: ViT, before, shape) -> dict[str, np.ndarray]:
    """Those of clips from those of images: equal at all times."""
    table, prefix = _table(saved, old, before), old.prefix
    steps = grid_of(shape[:-1], new.patch)[0]
    first, space = table[:prefix], table[prefix:]  # [prefix, D], [L, D]
    if new.positions != "separable":
        return {"positions": np.concatenate([first, np.tile(space, (steps, 1))])}
    time = np.zeros((steps, table.shape[1]), np.float32)
    found = {"positions_space": space, "positions_time": time}
    return found | ({"positions_class": first} if prefix else {})


def _flattened(saved, old: ViT, before) -> dict[str, np.ndarray]:
    """Those of images from those of clips: the mean over time."""
    if old.positions == "separable":
        space = saved["positions_space"] + np.mean(saved["positions_time"], axis=0)
        first = saved["positions_class"] if old.prefix else space[:0]
        return {"positions": np.concatenate([first, space])}
    table, prefix = _table(saved, old, before), old.prefix
    steps = grid_of(before[:-1], old.patch)[0]
    space = table[prefix:].reshape(steps, -1, table.shape[1]).mean(axis=0)  # [T, L / T, D]
    return {"positions": np.concatenate([table[:prefix], space])}
