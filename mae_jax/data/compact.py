"""Columns of a table in few bytes: texts, class numbers, and marks of several classes."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from mae_jax.types import IGNORE

_BLOCK = 256  # texts that share a start
_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)  # of the four marks in a byte


class Texts(Sequence[str]):
    """N texts: their UTF-8 bytes, and one byte for the length of each, or 2 or 4 bytes where a text
    has more than 255 or 65,535.

    Args:
        column: `pyarrow.Array` of texts, none of them null.
    """

    def __init__(self, column: Any):
        import pyarrow as pa

        array = column.cast(pa.large_string())
        _, places, data = array.buffers()
        offsets = np.zeros(1, np.int64)
        if len(array):
            offsets = np.frombuffer(places, np.int64)[array.offset :][: len(array) + 1]
        self._starts = offsets[:-1:_BLOCK] - offsets[0]
        self._lengths = narrow(np.diff(offsets))
        self._data = memoryview(data)[offsets[0] : offsets[-1]].tobytes() if data else b""

    def __len__(self) -> int:
        return len(self._lengths)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = int(index) + len(self) * (index < 0)
        if not 0 <= place < len(self):
            raise IndexError(index)
        block = place // _BLOCK
        start = int(self._starts[block] + self._lengths[block * _BLOCK : place].sum())
        return self._data[start : start + int(self._lengths[place])].decode()

    @property
    def nbytes(self) -> int:
        """Bytes in memory beside the texts themselves."""
        return self._starts.nbytes + self._lengths.nbytes

    def update(self, digest: Any) -> None:
        """Adds the texts to a hash of `hashlib`."""
        digest.update(self._lengths.astype("<u4").tobytes())
        digest.update(self._data)


def narrow(numbers: np.ndarray) -> np.ndarray:
    """Numbers of 0 or more as the smallest unsigned type that holds all of them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def packed(marks: np.ndarray) -> np.ndarray:
    """Marks [N, K] uint8 of 0, 1 or `IGNORE`, in 2 bits each: [N, ceil(K / 4)] uint8."""
    padding = -marks.shape[1] % 4
    wide = np.pad(marks & 3, ((0, 0), (0, padding)))  # IGNORE becomes 3
    fours = wide.reshape(len(marks), -1, 4) << _SHIFTS  # [N, K / 4, 4]
    return np.bitwise_or.reduce(fours, axis=2)


def unpacked(rows: np.ndarray, classes: int) -> np.ndarray:
    """The marks [N, classes] of `packed` rows."""
    marks = (rows[:, :, None] >> _SHIFTS & 3).reshape(len(rows), -1)[:, :classes]
    return np.where(marks == 3, np.uint8(IGNORE), marks)
