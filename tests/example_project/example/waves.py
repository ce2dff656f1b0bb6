"""A source of images of any rank: waves [*space, 1] uint8, of two frequencies."""

from collections.abc import Sequence

import numpy as np

from mae_jax.data.sources import Arrays


def make(*, space: Sequence[int] = (32,), num_examples: int = 32, seed: int = 0) -> Arrays:
    """config.data.train='example.waves(space=(32,))'"""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num_examples).astype(np.int32)
    phase = rng.uniform(0, 6, num_examples)
    place = sum(np.ogrid[tuple(slice(side) for side in space)])
    angles = (1 + label).reshape(-1, *(1,) * len(space)) * 0.4 * place
    waves = 127 + 100 * np.sin(angles + phase.reshape(-1, *(1,) * len(space)))
    return Arrays(
        {"image": waves[..., None].astype(np.uint8), "label": label}, {"label": ("slow", "fast")}
    )
