"""A source of images with any number of axes: waves [*space, 1] uint8 of two frequencies."""

from collections.abc import Sequence

import numpy as np

from mae_jax.data.sources import Arrays


def make(*, space: Sequence[int] = (32,), num_examples: int = 32, seed: int = 0) -> Arrays:
    """Makes the source. In a config: data.train='example.waves(space=(32,))'"""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num_examples).astype(np.int32)
    phase = rng.uniform(0, 6, num_examples)
    index = sum(np.ogrid[tuple(slice(side) for side in space)])  # [*space], sum of coordinates
    angles = (1 + label).reshape(-1, *(1,) * len(space)) * 0.4 * index
    waves = 127 + 100 * np.sin(angles + phase.reshape(-1, *(1,) * len(space)))
    return Arrays(
        {"image": waves[..., None].astype(np.uint8), "label": label}, {"label": ("slow", "fast")}
    )
