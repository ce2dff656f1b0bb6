"""Color jitter: random brightness, contrast and saturation in random order, as torchvision's
`ColorJitter` computes them with Pillow.
"""

import numpy as np
from PIL import Image, ImageEnhance

from mae_jax.data.transforms import Transform, color_of
from mae_jax.types import UserError

OPERATIONS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


class ColorJitter(Transform):
    """Changes colors; see `make`."""

    draws = 2 * len(OPERATIONS)

    def __init__(self, strengths: tuple[float, float, float]):
        self.strengths = strengths

    def plan(self, u):
        """[B, 6]: the three factors, and three numbers whose order is that of the operations."""
        low = np.maximum(0, 1 - np.array(self.strengths))
        high = 1 + np.array(self.strengths)
        return np.concatenate([low + u[:, :3] * (high - low), u[:, 3:]], axis=1)

    def apply(self, example, params):
        """Changes the image; keeps its shape and all other fields. Gray images have no
        saturation.
        """
        pixels = color_of(example, "color_jitter")
        gray = pixels.shape[2] == 1
        image = Image.fromarray(pixels[:, :, 0] if gray else pixels)
        for number in np.argsort(params[3:], kind="stable"):
            if self.strengths[number] and not (gray and OPERATIONS[number] is ImageEnhance.Color):
                image = OPERATIONS[number](image).enhance(float(params[number]))
        return {**example, "image": np.asarray(image).reshape(pixels.shape)}


def make(*, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4) -> ColorJitter:
    """Random brightness, contrast and saturation of gray and RGB images [H, W, C] uint8.

    Args:
        brightness: strength s: the image is multiplied by a factor uniform in [max(0, 1 - s),
            1 + s]; 0: unchanged.
        contrast: likewise for the distance to the image's mean gray level.
        saturation: likewise for the distance to the gray image.

    Raises:
        UserError: a strength is negative or not a number.
    """
    strengths = dict(brightness=brightness, contrast=contrast, saturation=saturation)
    for name, value in strengths.items():
        if not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise UserError(f"color_jitter: {name}={value!r} should be a number, at least 0")
    return ColorJitter(tuple(strengths.values()))
