"""A source: stripes of a random color, drawn on demand; their direction is the label."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.data.sources import Source


class Stripes(Source):
    """Images [size, size, 3] uint8, each a function of the seed and its index."""

    names = {"label": ("horizontal", "vertical", "falling", "rising")}

    def __init__(self, size: int, num_examples: int, seed: int):
        self.size, self.num_examples, self.seed = size, num_examples, seed

    def read(self, indices: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """The images and labels at `indices` [n]."""
        pairs = [self._make(int(index)) for index in indices]
        return {"image": [image for image, _ in pairs], "label": [label for _, label in pairs]}

    def name(self, index: int) -> str:
        """Name of an example in messages."""
        return f"stripes {index}"

    def _make(self, index: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng((self.seed, index))
        label = int(rng.integers(4))
        y, x = np.mgrid[: self.size, : self.size]
        along = (y, x, x + y, x - y)[label]
        wave = 0.5 + 0.5 * np.sin(along * rng.uniform(0.6, 1.2) + rng.uniform(0, 6))
        color = rng.uniform(64, 255, 3)
        return (wave[:, :, None] * color).astype(np.uint8), label


def make(*, size: int = 32, num_examples: int = 1000, seed: int = 0) -> Stripes:
    """Makes the source. In a config: data.train='my_project.source(size=32, seed=0)'

    Args:
        size: side of the images in pixels.
        num_examples: number of images.
        seed: another seed draws other images; use different ones for training and test data.
    """
    return Stripes(size, num_examples, seed)
