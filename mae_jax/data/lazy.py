"""Images that are read when they are cropped: a crop of a large file reads its part only."""

import abc

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
