"""The parts of the scenes of `sources/fashion_scenes.py`, and how they are drawn: photographs,
garments, and windows on them.
"""

import functools
import importlib.resources
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

GARMENT = 28
"""Side of a garment's image."""
BRIGHTNESS = (0.3, 1.0)
"""Range of the factor of the background."""
TINT = (0.4, 1.0)
"""Range of each color of a garment: brighter than most of what is behind it."""
GARMENT_SCALE = (0.5, 0.9)
"""Range of the side of a garment's square over the side of a scene of one garment."""
SHADING = (0.2, 1.0)
"""Range of the share of the tint that the garment's own gray levels modulate."""

_OPAQUE_FROM = 40  # gray level of a garment from which it hides what is behind it entirely
_CROP_SCALE = (0.25, 1.0)  # side of the background over the short side of the photograph


class Ingredients(NamedTuple):
    """What the scenes of a split are made of."""

    garments: np.ndarray
    """[G, 28, 28] uint8, 0 where there is no garment."""
    labels: np.ndarray
    """[G] int32."""
    photographs: tuple[Image.Image, ...]
    """RGB."""
    photograph_names: tuple[str, ...]
    """As in SOURCES.md."""


@functools.cache
def load(split: str) -> Ingredients:
    """Reads the ingredients of a split, 'train' or 'test'."""
    assets = importlib.resources.files("mae_jax.data") / "fashion_scenes_assets"
    with (assets / "ingredients.npz").open("rb") as file, np.load(file) as arrays:
        names = [name for name in arrays.files if name.startswith(f"{split}/photographs/")]
        return Ingredients(
            garments=arrays[f"{split}/garments"],
            labels=arrays[f"{split}/labels"].astype(np.int32),
            photographs=tuple(
                Image.open(io.BytesIO(arrays[name].tobytes())).convert("RGB") for name in names
            ),
            photograph_names=tuple(name.rpartition("/")[2] for name in names),
        )


def photograph_crop(photographs, draw: dict[str, float], size: int) -> np.ndarray:
    """A square crop of one of the photographs, [size, size, 3] uint8."""
    photograph = photographs[int(draw["photograph"] * len(photographs))]
    width, height = photograph.size
    side = between(_CROP_SCALE, draw["crop_scale"]) * min(width, height)
    left, top = draw["crop_x"] * (width - side), draw["crop_y"] * (height - side)
    box = (left, top, left + side, top + side)
    crop = resample(photograph, box, (size, size), Image.Resampling.BILINEAR)
    return crop[:, ::-1] if draw["crop_flip"] < 0.5 else crop


def garment_canvas(garment: np.ndarray, *, flip: bool) -> Image.Image:
    """The garment in the middle of an empty canvas, three times as wide and high. The channels are
    its gray levels, its opacity, and an empty one, because Pillow changes the values of images of
    two channels when it resamples them.
    """
    garment = garment[:, ::-1] if flip else garment
    canvas = np.zeros((3 * GARMENT, 3 * GARMENT, 3), np.uint8)
    inside = slice(GARMENT, 2 * GARMENT)
    canvas[inside, inside, 0] = garment
    canvas[inside, inside, 1] = np.minimum(garment, _OPAQUE_FROM) * (255 / _OPAQUE_FROM)
    return Image.fromarray(canvas)


def garment_layers(
    garment: np.ndarray, size: int, *, scale: float, place: tuple[float, float], flip: bool
) -> np.ndarray:
    """A garment's gray levels and its opacity in a square scene, [size, size, 2] uint8.

    Args:
        garment: [28, 28] uint8.
        size: side of the scene in pixels.
        scale: side of the garment's square over that of the scene, in [0.5, 1].
        place: (y, x) of the square in the room that it leaves, in [0, 1].
        flip: mirror it.
    """
    # The scene is a window on a canvas with the garment at its center. Resampling the window places
    # the garment with subpixel accuracy, at the same position for any size.
    window = garment_canvas(garment, flip=flip)
    side = GARMENT / scale
    left = GARMENT - place[1] * (side - GARMENT)
    top = GARMENT - place[0] * (side - GARMENT)
    box = (left, top, left + side, top + side)
    return resample(window, box, (size, size), Image.Resampling.BICUBIC)[..., :2]


def resample(
    image: Image.Image, box: Sequence[float], shape: tuple[int, int], kernel
) -> np.ndarray:
    """The window `box` (left, top, right, bottom) of an image, antialiased: [*shape, 3] uint8."""
    # `reducing_gap` averages whole pixels first where many fall on one: a quarter of the time.
    return np.asarray(image.resize(shape[::-1], kernel, box=tuple(box), reducing_gap=1.5))


def between(limits: tuple[float, float], u):
    """The value at the share `u` of a range."""
    return limits[0] + (limits[1] - limits[0]) * u
