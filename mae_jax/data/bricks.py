"""Volumes in ArrayRecord files: a record of text, and bricks of voxels that crops are read from."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from mae_jax.data.images import BadImage
from mae_jax.data.lazy import Lazy
from mae_jax.data.slices import reason

BRICK = 32
"""Voxels along each side of a brick; fewer in the last one of an axis."""

Sides = tuple[int, int, int]


def grid_of(space: Sequence[int]) -> Sides:
    """Number of bricks along each axis of a volume [D, H, W]."""
    return tuple(-(-side // BRICK) for side in space)


def slabs(depth: int) -> Iterator[slice]:
    """Rows of bricks along the first axis."""
    return (slice(first, min(first + BRICK, depth)) for first in range(0, depth, BRICK))


def bricks(slab: np.ndarray) -> Iterator[np.ndarray]:
    """The bricks [d, h, w, ...] of a slab [d, H, W, ...], in the order of rows and columns."""
    starts = [range(0, side, BRICK) for side in slab.shape[1:3]]
    for row, column in itertools.product(*starts):
        yield slab[:, row : row + BRICK, column : column + BRICK]


def encode_labels(brick: np.ndarray) -> bytes:
    """The bytes of class numbers [d, h, w] int32: of uint8 if they fit, else of int32."""
    small = brick.astype(np.uint8)
    return (small if np.array_equal(small, brick) else brick.astype(np.int32)).tobytes()


class BrickArray(Lazy):
    """A volume [D, H, W, *tail] whose bricks are read when it is indexed.

    Args:
        read: returns the bytes of bricks by their numbers, in row-major order of `grid_of`.
        shape: shape of the volume.
        dtype: type of its values. Bricks of int32 may be stored as uint8, see `encode_labels`.
    """

    def __init__(
        self,
        read: Callable[[Sequence[int]], Sequence[bytes]],
        shape: Sequence[int],
        dtype: np.dtype,
    ):
        self._read, self.shape, self.dtype = read, tuple(shape), np.dtype(dtype)

    def __getitem__(self, part):
        """[d, h, w, *tail]."""
        part = (*part, *[slice(None)] * (3 - len(part)))
        rows = [range(*one.indices(side)) for one, side in zip(part, self.shape)]
        if not all(map(len, rows)):
            return np.empty((*map(len, rows), *self.shape[3:]), self.dtype)
        grid = grid_of(self.shape[:3])
        first = [row[0] // BRICK for row in rows]
        count = [row[-1] // BRICK + 1 - low for row, low in zip(rows, first)]
        places = list(itertools.product(*map(range, first, map(sum, zip(first, count)))))
        try:
            stored = self._read([(d * grid[1] + h) * grid[2] + w for d, h, w in places])
            block = self._joined(places, stored, first, count)
        except Exception as error:  # a damaged record
            raise BadImage(f"its record: {reason(error)}") from error
        starts = [low * BRICK for low in first]
        return block[tuple(slice(r[0] - s, r[-1] + 1 - s, r.step) for r, s in zip(rows, starts))]

    def _joined(self, places, stored, first, count) -> np.ndarray:
        """The block of all bricks read."""
        sides = [min((a + n) * BRICK, side) - a * BRICK for a, n, side in self._ends(first, count)]
        block = np.empty((*sides, *self.shape[3:]), self.dtype)
        for place, data in zip(places, stored, strict=True):
            target = tuple(
                slice((p - a) * BRICK, (p + 1 - a) * BRICK) for p, a in zip(place, first)
            )
            brick = block[target]
            small = len(data) == brick.size < brick.nbytes
            brick[:] = np.frombuffer(data, np.uint8 if small else self.dtype).reshape(brick.shape)
        return block

    def _ends(self, first, count):
        return zip(first, count, self.shape[:3], strict=True)


def number_of(space: Sequence[int]) -> int:
    """Number of bricks of a volume [D, H, W]."""
    return math.prod(grid_of(space))
