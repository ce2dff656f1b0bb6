"""Colors of classes, and images with their classes in color."""

import colorsys

import numpy as np

GOLDEN = 0.61803398875
"""Steps of this share of the hue circle never come back to a hue."""


def palette(count: int) -> np.ndarray:
    """[count, 3] uint8: class 0 is black, as a background often is; the others differ in hue and,
    by turns, in saturation and brightness.
    """
    colors = [(0.0, 0.0, 0.0)]
    for number in range(1, count):
        saturation, value = ((0.75, 0.95), (0.5, 1.0), (0.9, 0.7))[number % 3]
        colors.append(colorsys.hsv_to_rgb(number * GOLDEN % 1, saturation, value))
    return np.rint(np.array(colors[:count]).reshape(-1, 3) * 255).astype(np.uint8)


def overlay(
    image: np.ndarray, labels: np.ndarray, colors: np.ndarray, *, strength: float = 0.55
) -> np.ndarray:
    """An image with its classes in color.

    Args:
        image: [H, W, C] uint8; of other than three channels the first is shown.
        labels: [H, W] int, classes; others, such as ignored pixels, and class 0 stay as they are.
        colors: [classes, 3] uint8.
        strength: share of the color, in [0, 1].

    Returns:
        [H, W, 3] uint8.
    """
    shown = np.broadcast_to(image if image.shape[-1] == 3 else image[..., :1], (*labels.shape, 3))
    colored = (labels > 0) & (labels < len(colors))
    tinted = (1 - strength) * shown + strength * colors[np.where(colored, labels, 0)]
    return np.where(colored[..., None], np.rint(tinted), shown).astype(np.uint8)
