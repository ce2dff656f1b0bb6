"""A transform: makes an image darker or brighter, by a factor drawn for each example."""

import numpy as np

from mae_jax.data.transforms import Example, Transform


class Brightness(Transform):
    """Moves no pixels, so that segmentations and boxes stay as they are."""

    draws = 1

    def __init__(self, least: float):
        self.least = least

    def plan(self, u: np.ndarray) -> np.ndarray:
        """[B, 1] uniform numbers to factors [B]."""
        return self.least + (1 / self.least - self.least) * u[:, 0]

    def apply(self, example: Example, params: np.ndarray) -> Example:
        """The example with its image [H, W, C] uint8 times the factor."""
        image = np.clip(example["image"] * float(params), 0, 255).astype(np.uint8)
        return {**example, "image": image}


def make(least: float = 0.7) -> Brightness:
    """config.data.train_transform='random_resized_crop(32)|my_project.transform(least=0.7)'"""
    return Brightness(least)
