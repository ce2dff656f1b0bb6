"""Images that are read when they are cropped: a crop of a large file reads its part only."""

import abc
from collections.abc import Sequence

import numpy as np


class Lazy(abc.ABC):
    """An array [*space, C] or [*space] that is read when it is indexed by slices. It takes the
    place of an array as the field of an example: geometric transforms index it, and the loader
    reads what is left of it as a whole.
    """

    shape: tuple[int, ...]
    """Shape of the whole array."""
    dtype: np.dtype
    """Type of what is read."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @abc.abstractmethod
    def __getitem__(self, part: tuple[slice, ...]) -> np.ndarray:
        """Reads a part.

        Args:
            part: slices of the first axes, with positive steps; the other axes are read whole.

        Raises:
            BadImage: it cannot be read.
        """

    def pixels(self) -> np.ndarray:
        """Reads the whole array."""
        return self[()]


class Part(Lazy):
    """A box of another array.

    Args:
        base: [*space, ...], in memory or lazy.
        box: slices of the space without steps, within `base`.
    """

    def __init__(self, base: np.ndarray | Lazy, box: Sequence[slice]):
        self.base, self.box, self.dtype = base, tuple(box), base.dtype
        self.shape = (*(one.stop - one.start for one in box), *base.shape[len(box) :])

    def __getitem__(self, part):
        """[*part, ...]."""
        rank = len(self.box)
        part = (*part, *[slice(None)] * (rank - len(part)))
        rows = [range(one.start, one.stop)[cut] for one, cut in zip(self.box, part, strict=True)]
        return self.base[tuple(slice(row.start, row.stop, row.step) for row in rows)]
