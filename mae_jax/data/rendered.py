"""What sources have in common whose examples are rendered when they are read."""

import abc
from collections.abc import Mapping, Sequence

import numpy as np

from mae_jax.data.random import hash_words
from mae_jax.data.sources import Source
from mae_jax.types import UserError


class Rendered(Source):
    """Images with the class of each pixel, functions of (seeds, index)."""

    def __init__(self, *, size: int, num_examples: int, seeds: tuple[int, int]):
        self.size, self.num_examples, self._seeds = size, num_examples, seeds

    def read(self, indices: np.ndarray) -> dict[str, Sequence]:
        """'image', 'segmentation' and 'label'."""
        rows = [self.render(key) for key in hash_words(*self._seeds, np.asarray(indices))]
        names = ("image", "segmentation", "label")
        return dict(zip(names, zip(*rows, strict=True), strict=True))

    def name(self, index: int) -> str:
        """The number of the example."""
        return f"[{index}]"

    @abc.abstractmethod
    def render(self, key: np.uint64) -> tuple[np.ndarray, np.ndarray, int]:
        """The image [*space, C] uint8, the class of each pixel [*space] int32, and the label."""


def check_integers(source: str, arguments: Mapping[str, tuple[int, int, int]]) -> None:
    """Checks arguments of a source.

    Args:
        source: its name, for messages.
        arguments: name -> (value, least, most).

    Raises:
        UserError: a value is no int, or out of its range.
    """
    for name, (value, least, most) in arguments.items():
        if type(value) is not int or not least <= value <= most:
            raise UserError(f"{source}: {name}={value!r} should be an int from {least} to {most}")
