"""Resampling of arrays of any rank along their axes, in parts: linear on images, nearest on labels.

Linear interpolation is that of Pillow's bilinear kernel: between two voxels where the grid becomes
finer, and antialiased by a triangle as wide as the new voxels where it becomes coarser.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mae_jax.data.lazy import Lazy


class Taps(NamedTuple):
    """What the n' positions of a resampled axis read of the n positions of the original one."""

    indices: np.ndarray
    """[n', T] int, positions in [0, n)."""
    weights: np.ndarray
    """[n', T] float32, rows sum to 1; 0 where a position reads fewer than T others."""

    @property
    def is_identity(self) -> bool:
        """Whether every position of a part of the axis reads itself alone."""
        indices = self.indices[:, 0]
        return self.indices.shape[1] == 1 and bool((np.diff(indices) == 1).all())


def centers(count: int, step: float) -> np.ndarray:
    """[count] float64, the places of new voxels on an axis of old ones, whose voxel k is centered
    at k and reaches from k - 0.5 to k + 0.5. Both grids start at -0.5.

    Args:
        count: number of new voxels.
        step: distance of new voxels, in old ones.
    """
    return (np.arange(count) + 0.5) * step - 0.5


def nearest(old: int, new: int, step: float) -> Taps:
    """Taps of the nearest voxel; of two at the same distance, the later one.

    Args:
        old, new: number of voxels before and after.
        step: distance of new voxels, in old ones.
    """
    indices = np.floor(centers(new, step) + 0.5).astype(np.int64)
    return Taps(np.clip(indices, 0, old - 1)[:, None], np.ones((new, 1), np.float32))


def linear(old: int, new: int, step: float) -> Taps:
    """Taps of linear interpolation; at the ends, the weights of the voxels inside sum to 1.

    Args:
        old, new: number of voxels before and after.
        step: distance of new voxels, in old ones.
    """
    if step == 1:
        return nearest(old, new, step)
    places, reach = np.clip(centers(new, step), 0, old - 1), max(1.0, step)
    first = np.ceil(places - reach).astype(np.int64)
    indices = first[:, None] + np.arange(math.floor(2 * reach) + 1)  # [n', T]
    weights = np.maximum(0, 1 - np.abs(indices - places[:, None]) / reach)
    weights *= (indices >= 0) & (indices < old)
    weights /= weights.sum(1, keepdims=True)
    used = weights.any(0)
    return Taps(np.clip(indices, 0, old - 1)[:, used], weights[:, used].astype(np.float32))


class Resampled(Lazy):
    """An array that is resampled when it is indexed: a part reads what it needs of the original.

    Args:
        base: [*space, ...], in memory or lazy.
        taps: of each axis of the space.
        dtype: type of the result; None: that of `base`. Integers are rounded.
    """

    def __init__(
        self, base: np.ndarray | Lazy, taps: Sequence[Taps], dtype: np.dtype | None = None
    ):
        self.base, self.taps = base, tuple(taps)
        self.dtype = np.dtype(base.dtype if dtype is None else dtype)
        self.shape = (*(len(one.indices) for one in taps), *base.shape[len(taps) :])

    def __getitem__(self, part):
        """[*part, ...]."""
        rank = len(self.taps)
        part = (*part, *[slice(None)] * (rank - len(part)))
        taps = [Taps(t.indices[one], t.weights[one]) for t, one in zip(self.taps, part)]
        if not all(len(one.indices) for one in taps):
            shape = (*(len(one.indices) for one in taps), *self.shape[rank:])
            return np.empty(shape, self.dtype)
        starts = [int(one.indices.min()) for one in taps]
        ends = [int(one.indices.max()) + 1 for one in taps]
        values = self.base[tuple(map(slice, starts, ends))]
        for axis, (one, start) in enumerate(zip(taps, starts, strict=True)):
            values = _along(values, axis, Taps(one.indices - start, one.weights))
        if self.dtype.kind in "iu" and values.dtype.kind == "f":
            ends = np.iinfo(self.dtype)
            values = np.rint(values)
            np.clip(values, ends.min, ends.max, out=values)
        return values.astype(self.dtype, copy=False)


def _along(values: np.ndarray, axis: int, taps: Taps) -> np.ndarray:
    """Resamples an axis. One tap for each position keeps the type, several make float32."""
    indices, weights = taps
    if taps.is_identity and len(indices) == values.shape[axis]:
        return values
    if indices.shape[1] == 1:
        return values.take(indices[:, 0], axis)
    values, shape = values.astype(np.float32, copy=False), [1] * values.ndim
    shape[axis] = len(indices)
    total = 0
    for tap in range(indices.shape[1]):
        part = values.take(indices[:, tap], axis)
        part *= weights[:, tap].reshape(shape)  # in place: slabs are large
        total = np.add(total, part, out=part)
    return total
