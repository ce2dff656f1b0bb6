"""RandAugment: a few random operations out of fifteen, at one magnitude (Cubuk et al. 2019, arXiv
1909.13719).

The variant is 'rand-m9-mstd0.5-inc1' of timm, as in the fine-tuning of the MAE paper, with timm's
argument ranges for magnitudes 0 to 10. Pixels match Pillow's. Geometric operations are bicubic (as
in the fine-tuning of MAE), and move the other fields with the image.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mae_jax.data.fields import move
from mae_jax.data.geometry import Affine, pillow_of
from mae_jax.data.transforms import Transform, color_of
from mae_jax.data.transforms.pad import FILL
from mae_jax.types import UserError

MAX_MAGNITUDE = 10


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    """Keeps the highest bits. Unlike `ImageOps.posterize`, accepts 0, which gives black."""
    kept = 255 << (8 - bits)
    return image.point([value & kept for value in range(256)] * len(image.getbands()))


def _solarize_add(image, level, sign):
    """Adds up to 110 to the darker half of the gray levels."""
    added = int(110 * level)
    table = [gray + added if gray < 128 else gray for gray in range(256)]
    return image.point(table * len(image.getbands()))


def _enhance(kind):
    """An operation that scales a quality of Pillow's `ImageEnhance` by 0.1 to 1.9."""
    return lambda image, level, sign: kind(image).enhance(1 + sign * 0.9 * level)


PHOTOMETRIC = {
    "auto_contrast": lambda image, level, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign: ImageOps.equalize(image),
    "invert": lambda image, level, sign: ImageOps.invert(image),
    "posterize": lambda image, level, sign: _posterize(image, 4 - int(4 * level)),
    "solarize": lambda image, level, sign: ImageOps.solarize(image, 256 - int(256 * level)),
    "solarize_add": _solarize_add,
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
}
"""Operations that keep pixels in place: Pillow image, level in [0, 1], sign -> Pillow image."""


def _rotation(amount, height, width):
    """Rotation by up to 30 degrees about the center, counterclockwise for positive amounts."""
    angle = math.radians(30 * amount)
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])


GEOMETRIC = {
    "rotate": _rotation,
    "shear_x": lambda amount, h, w: np.array([[1, 0.3 * amount, 0], [0, 1, 0]]),
    "shear_y": lambda amount, h, w: np.array([[1, 0, 0], [0.3 * amount, 1, 0]]),
    "translate_x": lambda amount, h, w: np.array([[1, 0, 0.45 * amount * w], [0, 1, 0]]),
    "translate_y": lambda amount, h, w: np.array([[1, 0, 0], [0, 1, 0.45 * amount * h]]),
}
"""Operations that move pixels: level * sign, height, width -> matrix [2, 3], see
`geometry.Affine`."""

OPERATIONS = (*PHOTOMETRIC, *GEOMETRIC)


class RandAugment(Transform):
    """Applies random operations in sequence; see `make`."""

    def __init__(self, magnitude, deviation, operations, probability, fill):
        self.magnitude, self.deviation = magnitude, deviation
        self.operations, self.probability, self.fill = operations, probability, fill
        self.draws = 5 * operations

    def plan(self, u):
        """[B, operations, 3]: index in OPERATIONS, or -1 for none; magnitude in [0, 10]; sign."""
        u = u.reshape(-1, self.operations, 5)
        index = np.where(u[..., 1] < self.probability, np.floor(u[..., 0] * len(OPERATIONS)), -1)
        # Box-Muller: two uniform numbers to a normal one; 1 - u is never zero.
        normal = np.sqrt(-2 * np.log(1 - u[..., 2])) * np.cos(2 * np.pi * u[..., 3])
        magnitude = np.clip(self.magnitude + self.deviation * normal, 0, MAX_MAGNITUDE)
        return np.stack([index, magnitude, np.where(u[..., 4] < 0.5, -1, 1)], axis=-1)

    def apply(self, example, params):
        """Augments an image of 1 or 3 channels; keeps its shape."""
        changed = {**example, "image": color_of(example, "rand_augment")}
        for index, magnitude, sign in params[params[:, 0] >= 0]:
            name, level = OPERATIONS[int(index)], float(magnitude) / MAX_MAGNITUDE
            pixels = changed["image"]
            if name in PHOTOMETRIC:
                image = PHOTOMETRIC[name](pillow_of(pixels), level, sign)
                changed["image"] = np.asarray(image).reshape(pixels.shape)
            else:
                matrix = GEOMETRIC[name](level * sign, *pixels.shape[:2])
                changed = move(changed, Affine(matrix=matrix, fill=self.fill))
        return changed


def make(
    *,
    magnitude: float = 9,
    deviation: float = 0.5,
    operations: int = 2,
    probability: float = 0.5,
    fill=FILL,
) -> RandAugment:
    """Random operations on images of 1 or 3 channels.

    Args:
        magnitude: mean strength of the operations, in [0, 10].
        deviation: standard deviation of the strength, which is normal and clipped to [0, 10].
        operations: number of operations, chosen uniformly with replacement.
        probability: probability with which each chosen operation is applied.
        fill: (red, green, blue), integers in [0, 255], for pixels outside the image; by default the
            mean of ImageNet. A segmentation is `fields.IGNORE` there.

    Raises:
        UserError: an argument is out of range.
    """
    for name, value, high in (
        ("magnitude", magnitude, MAX_MAGNITUDE),
        ("deviation", deviation, MAX_MAGNITUDE),
        ("probability", probability, 1),
    ):
        if not 0 <= value <= high:
            raise UserError(f"rand_augment: {name}={value} is not in [0, {high}]")
    if operations < 1:
        raise UserError(f"rand_augment: operations={operations} must be at least 1")
    valid = isinstance(fill, Sequence) and len(fill) == 3
    if not valid or not all(type(level) is int and 0 <= level <= 255 for level in fill):
        raise UserError(f"rand_augment: fill={fill!r} should be three integers in [0, 255]")
    return RandAugment(magnitude, deviation, operations, probability, tuple(fill))
