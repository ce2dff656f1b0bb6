"""Scenes with texts: 'a', the color, the name of the class, each with a number of its own; every
seventh scene has none. In a config: data.train='tests.helpers.tiny_captions(split=train)'.
"""

import numpy as np

from mae_jax.data.sources import Arrays, fashion_scenes

LENGTH, WORDS = 6, 16


def make(split: str = "train", num_examples: int = 32) -> Arrays:
    """Scenes of 16 pixels, with texts of 2 or 3 tokens of LENGTH."""
    source = fashion_scenes.make(split=split, size=16, num_examples=num_examples)
    label, numbers = source.arrays["label"], np.arange(num_examples)
    bright = source.arrays["image"].mean(axis=(1, 2, 3)) > 128
    text = np.zeros((num_examples, LENGTH), np.int32)
    text[:, :3] = np.stack([0 * label + 1, 2 + bright, 4 + label], axis=1)
    count = np.where(numbers % 7 == 6, 0, 2 + (numbers % 2))
    valid = np.arange(LENGTH) < count[:, None]
    source.arrays |= {"text": np.where(valid, text, 0), "text_valid": valid}
    return source
