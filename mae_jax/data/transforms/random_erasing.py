"""Random erasing: noise in a random box of some images (Zhong et al. 2017, arXiv 1708.04896).

The MAE paper fine-tunes with timm's `reprob=0.25, mode='pixel', count=1`: standard normal noise in
normalized pixels, which is normal noise with the mean and std of the data set in raw pixels.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from mae_jax.data.random import hash_words
from mae_jax.data.transforms import Transform, check_range, pixels_of
from mae_jax.types import UserError


class RandomErasing(Transform):
    """Erases a box; see `make`."""

    tries = 10
    draws = 2 + 4 * tries

    def __init__(self, probability, area, aspect, mean, std):
        self.probability, self.area, self.aspect = probability, area, aspect
        pairs = np.broadcast(mean, std)
        self.tables = np.stack([_noise_table(*pair) for pair in pairs])

    def plan(self, u):
        """[B, 2 + 4 * tries]: 1 to erase, else 0; seed of the noise in [0, 1); and for each try:
        share of the area, square root of the aspect ratio, relative position in y and in x.
        """
        tries = u[:, 2:].reshape(-1, self.tries, 4)
        area = self.area[0] + tries[:, :, 0] * (self.area[1] - self.area[0])
        low, high = np.log(self.aspect)
        aspect = np.exp(low + tries[:, :, 1] * (high - low))
        tries = np.stack([area, np.sqrt(aspect), tries[:, :, 2], tries[:, :, 3]], axis=2)
        erase = u[:, :1] < self.probability
        return np.concatenate([erase, u[:, 1:2], tries.reshape(len(u), -1)], axis=1)

    def box(self, height: int, width: int, params: np.ndarray) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the box to erase: the first try that is smaller than the
        image in both directions; zeros if there is none.
        """
        area, aspect, y, x = params[2:].reshape(self.tries, 4).T
        side = np.sqrt(float(height) * width * area)
        heights, widths = np.rint(side * aspect), np.rint(side / aspect)
        fits = (heights >= 1) & (widths >= 1) & (heights < height) & (widths < width)
        if not params[0] or not fits.any():
            return 0, 0, 0, 0
        first = fits.argmax()
        rows, columns = int(heights[first]), int(widths[first])
        top = int(y[first] * (height - rows + 1))
        return top, int(x[first] * (width - columns + 1)), rows, columns

    def apply(self, example, params):
        """Erases the box, or nothing; keeps the shape and all other fields."""
        pixels = pixels_of(example, "random_erasing")
        height, width, channels = pixels.shape
        if len(self.tables) not in (1, channels):
            raise UserError(
                f"random_erasing: mean and std of {len(self.tables)} channels, images of "
                f"{channels}: give one number, or {channels}"
            )
        top, left, rows, columns = self.box(height, width, params)
        if rows:
            pixels = pixels.copy()
            noise = self._noise(params[1], (channels, rows, columns))
            pixels[top : top + rows, left : left + columns] = noise.transpose(1, 2, 0)
        return {**example, "image": pixels}

    def _noise(self, seed: float, shape: tuple[int, int, int]) -> np.ndarray:
        """[C, H, W] uint8, a function of the seed, which is a multiple of 2**-53 in [0, 1)."""
        count = int(np.prod(shape))
        words = hash_words(int(seed * 2**53), np.arange(-(-count // 4)))
        # Each 64-bit word gives four pixels, independent of the machine's byte order.
        quarters = words.astype("<u8").view("<u2")[:count].reshape(shape)
        tables = np.broadcast_to(self.tables, (shape[0], self.tables.shape[1]))
        return np.stack([table[numbers] for table, numbers in zip(tables, quarters, strict=True)])


def _noise_table(mean: float, std: float) -> np.ndarray:
    """[65536] uint8: normal gray levels, rounded and clipped, indexed by uniform 16-bit numbers.

    Each gray level is repeated in proportion to its probability. The lookup is many times faster
    than the Box-Muller method, and does not depend on the rounding of a logarithm.
    """
    normal = NormalDist(255 * mean, 255 * std)
    ends = [round(65536 * normal.cdf(level + 0.5)) for level in range(255)]
    return np.repeat(np.arange(256, dtype=np.uint8), np.diff([0, *ends, 65536]))


def make(
    *,
    probability: float = 0.25,
    area=(0.02, 1 / 3),
    aspect=(0.3, 1 / 0.3),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
) -> RandomErasing:
    """Normal noise in a box, for images of any number of channels.

    Args:
        probability: probability with which an image is erased.
        area: range of the box's share of the image, up to 1; uniform.
        aspect: range of height / width; log-uniform.
        mean: mean of the noise, where 1 is white: a number per channel or one for all, in [0, 1];
            by default that of ImageNet.
        std: standard deviation of the noise, likewise, in [0.001, 1].

    Raises:
        UserError: an argument is out of range, or `mean` and `std` differ in length.
    """
    if not 0 <= probability <= 1:
        raise UserError(f"random_erasing: probability={probability} is not in [0, 1]")
    area = check_range("random_erasing", "area", area)
    aspect = check_range("random_erasing", "aspect", aspect)
    if area[1] > 1:
        raise UserError(f"random_erasing: area {area} exceeds the image: give at most 1")
    _check_channels("mean", mean, 0)
    _check_channels("std", std, 0.001)
    if len(mean) != len(std) and 1 not in (len(mean), len(std)):
        raise UserError(f"random_erasing: {len(mean)} numbers in mean and {len(std)} in std")
    return RandomErasing(probability, area, aspect, mean, std)


def _check_channels(name: str, values, low: float) -> None:
    """Raises UserError unless `values` are numbers in [low, 1], such as (0.5,)."""
    valid = isinstance(values, Sequence) and len(values) > 0
    if not valid or not all(isinstance(v, (int, float)) and low <= v <= 1 for v in values):
        raise UserError(
            f"random_erasing: {name}={values!r} should be a number in [{low}, 1] for each "
            "channel, or one for all, such as (0.5,)"
        )
