"""Images of many sizes in few compiled shapes, for evaluations at each image's original size.

An image is resized to a size whose sides are multiples of a step, so that few shapes occur. The
results are resized back by interpolation matrices, which are inputs of the compiled function, and
labels are padded to the multiples of another step. So nothing but the steps decides how often the
network is compiled.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mae_jax.ops.interpolate import bilinear_matrix
from mae_jax.types import IGNORE

LABEL_STEP = 128
"""Labels are padded to multiples of this side, unless all have one size."""


class EvalSize(NamedTuple):
    """How the size at which an image is tested follows from its own."""

    short: int
    """Length of the shorter side; 0: the image's own."""
    long: int
    """Largest length of the longer side; 0: any."""
    step: int
    """Sides are multiples of this."""

    def of(self, size: Sequence[int]) -> tuple[int, int]:
        """(height, width) at which an image of this (height, width) is tested."""
        factor = self.short / min(size) if self.short else 1.0
        if self.long:
            factor = min(factor, self.long / max(size))
        height, width = (max(1, round(side * factor / self.step)) * self.step for side in size)
        return height, width


class Bucket(NamedTuple):
    """Examples that are computed in one compiled shape."""

    inputs: tuple[int, int]
    """(height, width) to which their images are resized."""
    labels: tuple[int, int]
    """(height, width) to which their labels are padded."""
    indices: Sequence[int]


def buckets(sizes: np.ndarray, rule: EvalSize) -> list[Bucket]:
    """Groups examples by shape; the same in all processes.

    Args:
        sizes: [N, 2] (height, width) of the images.
        rule: of their test sizes.
    """
    step = 1 if len(np.unique(sizes, axis=0)) == 1 else LABEL_STEP
    groups: dict[tuple, list[int]] = {}
    for index, size in enumerate(sizes.tolist()):
        padded = tuple(-(-side // step) * step for side in size)
        groups.setdefault((rule.of(size), padded), []).append(index)
    return [Bucket(*shapes, indices) for shapes, indices in sorted(groups.items())]


def padded(array: np.ndarray, size: Sequence[int], fill: float | np.ndarray) -> np.ndarray:
    """An array [H, W, ...], padded at the bottom and on the right to `size` (height, width)."""
    result = np.empty((*size, *array.shape[2:]), array.dtype)
    result[...] = fill
    result[: array.shape[0], : array.shape[1]] = array
    return result


def padded_labels(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Labels [H, W] padded by ignored pixels to `size` (height, width), int32."""
    return padded(labels.astype(np.int32), size, IGNORE)


def resize_matrix(out: int, inside: int, padded_out: int, padded_inside: int) -> np.ndarray:
    """The matrix [padded_out, padded_inside] float32 that resizes the first `inside` values to the
    first `out` results, bilinear with half-pixel centers; other results are 0.
    """
    matrix = np.zeros((padded_out, padded_inside), np.float32)
    matrix[:out, :inside] = bilinear_matrix(out, inside)
    return matrix


def windows(size: Sequence[int], crop: int, stride: int) -> np.ndarray:
    """Corners [n, 2] (top, left) of square windows that cover an image of `size` (height, width),
    row by row; the last ones end at its borders.

    Args:
        crop: side of a window; not larger than the image.
        stride: distance of two windows, from 1 to `crop`.
    """
    starts = []
    for side in size:
        count = max(side - crop + stride - 1, 0) // stride + 1
        starts.append(np.minimum(np.arange(count) * stride, side - crop))
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int32)
