"""Predictions for every voxel of volumes of any size, by windows that slide over them, as in
nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z). The volume evaluator and `mae-jax
predict` share it.

Windows move along the first axis in the outer loop. So memory holds the logits of as many slices as
a window has, and slices that no later window covers are finished; a volume on a disk is read one
slab at a time.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mae_jax.data.fields import space_of
from mae_jax.data.images import BadImage
from mae_jax.data.order import evaluated
from mae_jax.data.volume_geometry import VolumeGeometry
from mae_jax.evals.features import EvalData, Predict
from mae_jax.ops.patches import one_or_all, patch_sides
from mae_jax.spec import check_choice
from mae_jax.types import Batch, UserError

WEIGHTINGS = ("gaussian", "uniform")
SIGMA = 1 / 8
"""Standard deviation of the Gaussian weights, as a share of the side of a window, as in nnU-Net."""


class Sliding(NamedTuple):
    """How windows slide over a volume."""

    crop: int | tuple[int, ...]
    """Side of a window, or one for each axis."""
    overlap: float
    weighting: str
    fill: int
    batch_size: int


def sliding(
    *,
    crop: int | Sequence[int],
    overlap: float = 0.5,
    weighting: str = "gaussian",
    fill: int = 0,
    batch_size: int = 4,
) -> Sliding:
    """Checks the options of `mae_jax.evals.volume_segmentation.make`, which documents them."""
    check_choice("weighting", weighting, WEIGHTINGS)
    if not all(type(side) is int and side > 0 for side in one_or_all(crop)):
        raise UserError(f"volume_segmentation: crop={crop!r} must be positive numbers of voxels")
    if not 0 <= overlap < 1:
        raise UserError(f"volume_segmentation: overlap={overlap} is outside [0, 1)")
    if batch_size < 1 or not 0 <= fill <= 255:
        raise UserError(
            f"volume_segmentation: batch_size={batch_size} must be at least 1, and fill={fill} a "
            "level from 0 to 255"
        )
    sides = crop if isinstance(crop, int) else tuple(crop)
    return Sliding(sides, overlap, weighting, fill, batch_size)


def starts(length: int, crop: int, overlap: float) -> list[int]:
    """First voxels of the windows along an axis: evenly spread, the last one ends at the border,
    and neighbors share at least `overlap` of their side, up to rounding.

    Args:
        length: voxels along the axis, at least `crop`.
    """
    count = math.ceil((length - crop) / max(1, crop * (1 - overlap))) + 1
    return [round(place * (length - crop) / max(1, count - 1)) for place in range(count)]


def weights(crop: Sequence[int], weighting: str) -> np.ndarray:
    """[*crop] float32, the weight of each voxel of a window: 'uniform', or 'gaussian', 1 in the
    middle and small at the borders, where a network sees little context.
    """
    grid = np.ones((), np.float32)
    for side in crop:
        places = (np.arange(side) - (side - 1) / 2) / (SIGMA * side)
        line = np.exp(-0.5 * places**2) if weighting == "gaussian" else np.ones(side)
        grid = grid[..., None] * line.astype(np.float32)
    return grid


def logits_of(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """'logits' [B, *crop, K] float32, for `Evaluator.reduce`."""
    return {"logits": outputs["segmentation"]}


def label_blocks(predict: Predict, image: Any, how: Sliding) -> Iterator[tuple[slice, np.ndarray]]:
    """The classes of a volume, block by block along the first axis.

    The logits of the windows that cover a voxel are averaged by their weights; a voxel has the
    class of the largest mean.

    Args:
        predict: a predictor with `logits_of` as `reduce`.
        image: [*space, C], an array or `data.lazy.Lazy`; the same in all processes.
        how: see `sliding`.

    Yields:
        Slices of the first axis, and classes [d, *rest] uint8.

    Raises:
        BadImage: a part cannot be read.
    """
    space = image.shape[:-1]
    crop = patch_sides(how.crop, len(space))
    padded = tuple(map(max, space, crop))
    first, *others = (starts(n, c, how.overlap) for n, c in zip(padded, crop, strict=True))
    corners = list(itertools.product(*others))
    weight = weights(crop, how.weighting)[..., None]  # [*crop, 1]
    inside, total, done = tuple(map(slice, space[1:])), None, 0

    # All classes of a voxel have the same sum of weights, so the largest sum is the largest mean.
    def labels(count: int) -> np.ndarray:
        return total[(slice(count), *inside)].argmax(-1).astype(np.uint8)

    for begin in first:
        if begin > done:
            yield slice(done, begin), labels(begin - done)
            kept = crop[0] - (begin - done)
            total[:kept] = total[begin - done :].copy()
            total[kept:], done = 0, begin
        slab = _slab(image, begin, (crop[0], *padded[1:]), how.fill)
        for corner, logits in _logits(predict, slab, corners, crop, how.batch_size):
            if total is None:
                total = np.zeros((*slab.shape[:-1], logits.shape[-1]), np.float32)
            total[(slice(None), *_window(corner, crop))] += weight * logits
    yield slice(done, space[0]), labels(space[0] - done)


def _window(corner: Sequence[int], crop: Sequence[int]) -> tuple[slice, ...]:
    """The part of all axes but the first."""
    return tuple(slice(at, at + side) for at, side in zip(corner, crop[1:], strict=True))


def _slab(image: Any, begin: int, shape: Sequence[int], fill: int) -> np.ndarray:
    """[*shape, C]: the slices of an image from `begin` on, padded after the last voxels."""
    part = np.asarray(image[(slice(begin, begin + shape[0]),)])
    if part.shape[:-1] == tuple(shape):
        return part
    full = np.full((*shape, part.shape[-1]), fill, part.dtype)
    full[tuple(map(slice, part.shape[:-1]))] = part
    return full


def _logits(
    predict: Predict,
    slab: np.ndarray,
    corners: Sequence[tuple[int, ...]],
    crop: Sequence[int],
    batch_size: int,
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """The corner of each window in a slab, and its logits [*crop, K].

    Args:
        batch_size: windows on a device, at most. Fewer are rounded up to a power of two, so that
            few shapes are compiled.
    """
    devices, processes = jax.device_count(), jax.process_count()
    each = 2 ** math.ceil(math.log2(math.ceil(len(corners) / devices)))
    size = devices * min(batch_size, each)
    mine = slice(*(size // processes * (jax.process_index() + n) for n in (0, 1)))
    for start in range(0, len(corners), size):
        some = corners[start : start + size]
        rows = [*some, *[some[-1]] * (size - len(some))][mine]
        images = np.stack([slab[(slice(None), *_window(corner, crop))] for corner in rows])
        found = predict({"image": images, "valid": np.ones(len(rows), bool)})
        yield from zip(some, np.asarray(found["logits"]))


def volumes(data: EvalData, split: str, limit: int | None = None) -> Iterator[tuple[int, dict]]:
    """Index and fields of each example of a split that can be opened, in all processes the same;
    volumes are read when they are indexed.

    Args:
        limit: at most so many, spread over the split.
    """
    indices, copies = evaluated(data.source(split).num_examples, limit), jax.process_count()
    groups = [[index] * copies for index in indices.tolist()]
    examples = data.originals(split, groups, copies, decoded=False)
    for (index, *_), (row,) in zip(groups, examples, strict=True):
        if row is not None:
            if len(space_of(row["image"])) != 3:
                raise UserError(
                    f"volume_segmentation: {data.source(split).name(index)} is no volume "
                    f"[D, H, W, C], but {list(row['image'].shape)}: use segmentation for images"
                )
            yield index, row


def unreadable(data: EvalData, split: str, index: int, error: BadImage) -> str:
    """A line about a volume that cannot be read, if such are skipped.

    Raises:
        UserError: they are not.
    """
    line = f"cannot read {data.source(split).name(index)}: {error}"
    if data.on_error != "skip":
        raise UserError(f"{line}; repair or remove it, or skip it: --on-error skip") from error
    return f"skipped: {line}"


def first_geometries(data: EvalData, split: str, count: int) -> list[VolumeGeometry | None]:
    """Geometry of the first examples of a split, in the order of `EvalData.eval` with the limit
    `count`; those that cannot be opened are left out.
    """
    source, found = data.source(split), []
    for index in evaluated(source.num_examples, count):
        with contextlib.suppress(BadImage):
            found.append(source.geometry(int(index)))
    return found
