"""A transform: multiplies the brightness of an image by a factor drawn for each example."""

import numpy as np

from mae_jax.data.transforms import Example, Transform


class Brightness(Transform):
    """Scales pixel values. It moves no pixels, so segmentations and boxes do not change."""

    draws = 1

    def __init__(self, least: float):
        self.least = least

    def plan(self, u: np.ndarray) -> np.ndarray:
        """Factors [B] in [least, 1 / least) from uniform numbers [B, 1] in [0, 1)."""
        return self.least + (1 / self.least - self.least) * u[:, 0]

    def apply(self, example: Example, params: np.ndarray) -> Example:
        """The example with its image [H, W, C] uint8 multiplied by the factor."""
        image = np.clip(example["image"] * float(params), 0, 255).astype(np.uint8)
        return {**example, "image": image}


def make(least: float = 0.7) -> Brightness:
    """Makes the transform. In a config: data.train_transform='...|my_project.transform(least=0.7)'

    Args:
        least: smallest factor, in (0, 1]; the largest is 1 / least.
    """
    return Brightness(least)
