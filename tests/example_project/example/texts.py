"""A source without images: sequences of consecutive word numbers, ascending or descending."""

import numpy as np

from mae_jax.data.sources import Arrays


def make(*, num_examples: int = 32, length: int = 6, vocabulary: int = 8, seed: int = 0) -> Arrays:
    """Makes the source. In a config: data.train='example.texts(seed=0)'"""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num_examples).astype(np.int32)
    start = rng.integers(0, vocabulary, num_examples)
    steps = np.where(label, 1, -1)[:, None] * np.arange(length)
    text = ((start[:, None] + steps) % vocabulary).astype(np.int32)
    return Arrays({"text": text, "label": label}, {"label": ("down", "up")})
