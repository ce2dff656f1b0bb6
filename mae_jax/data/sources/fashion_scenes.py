"""Small scenes that ship with the library: a tinted garment on a crop of a photograph.

Garments of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017) are scaled, flipped, placed and composited on
real photographs, so each scene has a label, an exact mask and a box. A scene is a function of
(seed, split, index); `size` only sets its resolution. Sources of the ingredients:
`mae_jax/data/fashion_scenes_assets/SOURCES.md`.
"""

import functools
import importlib.resources
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from mae_jax.data.random import hash_words, uniform
from mae_jax.data.sources import Arrays
from mae_jax.types import UserError

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SPLITS = ("train", "test")
MIN_SIZE, MAX_SIZE = 16, 4096

_GARMENT = 28
_OPAQUE_FROM = 40  # gray level of a garment from which it hides the photograph entirely
_GARMENT_SCALE = (0.5, 0.9)  # side of the garment's square over the side of the scene
_CROP_SCALE = (0.25, 1.0)  # side of the background over the short side of the photograph
_BRIGHTNESS = (0.3, 1.0)  # of the background
_TINT = (0.4, 1.0)  # of each color channel of the garment: brighter than most backgrounds
_SHADING = (0.2, 1.0)  # share of the tint that the garment's gray levels modulate
_CHUNK = 256  # scenes rendered at a time, to keep float buffers small

# The uniform numbers of a scene, in the order drawn. Append new ones, or all scenes change.
_DRAWS = (
    *("photograph", "crop_scale", "crop_y", "crop_x", "crop_flip", "brightness"),
    *("garment_scale", "garment_y", "garment_x", "garment_flip"),
    *("red", "green", "blue", "shading"),
)


class _Ingredients(NamedTuple):
    garments: np.ndarray  # [G, 28, 28] uint8, 0 where there is no garment
    labels: np.ndarray  # [G] int32
    photographs: tuple[Image.Image, ...]  # RGB


def make(
    *, split: str = "train", size: int = 32, num_examples: int | None = None, seed: int = 0
) -> Arrays:
    """Composes one split of the data set, in memory.

    Scene i shows garment i modulo the number of garments of the split (12,000 in train, 2,000 in
    test, balanced; every ten in a row hold each class once). It does not depend on `num_examples`.
    The splits share no garment and no photograph.

    Args:
        split: 'train' or 'test'.
        size: side of the square images in pixels, at least 16.
        num_examples: number of scenes; None: one per garment. More scenes repeat garments in other
            compositions.
        seed: seed of the compositions.

    Returns:
        An `Arrays` of 'image' [N, size, size, 3] uint8; 'label' [N] int32, in [0, 10);
        'segmentation' [N, size, size] bool, the pixels that the garment covers at half
        opacity or more; 'box' [N, 4] float32, the extent (ymin, xmin, ymax, xmax) of the
        segmentation as fractions of the image, in [0, 1].

    Raises:
        UserError: the split, the size or the number of examples is invalid.
    """
    if split not in SPLITS:
        raise UserError(f"fashion_scenes has no split {split!r}: use one of {', '.join(SPLITS)}")
    if type(size) is not int or not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(
            f"fashion_scenes cannot have size={size!r}: use an int from {MIN_SIZE} to {MAX_SIZE}"
        )
    if num_examples is not None and (not isinstance(num_examples, int) or num_examples < 1):
        raise UserError(
            f"fashion_scenes cannot have num_examples={num_examples!r}: use an int >= 1, or None "
            "for one scene per garment"
        )
    ingredients = _load(split)
    indices = np.arange(num_examples or len(ingredients.garments))
    draws = uniform(hash_words(seed, SPLITS.index(split), indices), len(_DRAWS))
    image = np.empty((len(indices), size, size, 3), np.uint8)
    segmentation = np.empty((len(indices), size, size), bool)
    garment = indices % len(ingredients.garments)
    for start in range(0, len(indices), _CHUNK):
        rows = slice(start, start + _CHUNK)
        image[rows], segmentation[rows] = _render(
            ingredients.garments[garment[rows]], ingredients.photographs, draws[rows], size
        )
    fields = {"image": image, "label": ingredients.labels[garment]}
    fields |= {"segmentation": segmentation, "box": _boxes(segmentation)}
    return Arrays(fields, {"label": CLASS_NAMES, "segmentation": ("background", "garment")})


def photographs(split: str) -> tuple[Image.Image, ...]:
    """The backgrounds of a split, RGB, with a shorter side of 256 pixels."""
    return _load(split).photographs


@functools.cache
def _load(split: str) -> _Ingredients:
    assets = importlib.resources.files("mae_jax.data") / "fashion_scenes_assets"
    with (assets / "ingredients.npz").open("rb") as file, np.load(file) as arrays:
        names = [name for name in arrays.files if name.startswith(f"{split}/photographs/")]
        return _Ingredients(
            garments=arrays[f"{split}/garments"],
            labels=arrays[f"{split}/labels"].astype(np.int32),
            photographs=tuple(
                Image.open(io.BytesIO(arrays[name].tobytes())).convert("RGB") for name in names
            ),
        )


def _render(garments: np.ndarray, photographs, draws: np.ndarray, size: int):
    """Images [B, size, size, 3] uint8 and segmentations [B, size, size] bool."""
    rows = [dict(zip(_DRAWS, row)) for row in draws.tolist()]
    background = np.stack([_background(photographs, row, size) for row in rows])
    layers = np.stack([_garment_layers(garment, row, size) for garment, row in zip(garments, rows)])
    gray, opacity = np.moveaxis(layers.astype(np.float32) / np.float32(255), -1, 0)[..., None]

    draw = dict(zip(_DRAWS, draws.astype(np.float32).T[..., None, None, None]))
    tint = np.concatenate([draw["red"], draw["green"], draw["blue"]], -1)
    shading = _between(_SHADING, draw["shading"])
    # Gray levels are zero outside the garment, so they are already multiplied by the opacity.
    garment = _between(_TINT, tint) * (shading * gray + (1 - shading) * opacity)
    behind = background * _between(_BRIGHTNESS, draw["brightness"]) * (1 - opacity)
    image = np.minimum(behind + 255 * garment, 255)
    return (image + np.float32(0.5)).astype(np.uint8), opacity[..., 0] >= 0.5


def _background(photographs, draw: dict[str, float], size: int) -> np.ndarray:
    """A square crop of one of the photographs, [size, size, 3] uint8."""
    photograph = photographs[int(draw["photograph"] * len(photographs))]
    width, height = photograph.size
    side = _between(_CROP_SCALE, draw["crop_scale"]) * min(width, height)
    left, top = draw["crop_x"] * (width - side), draw["crop_y"] * (height - side)
    crop = _resample(photograph, left, top, side, size, Image.Resampling.BILINEAR)
    return crop[:, ::-1] if draw["crop_flip"] < 0.5 else crop


def _garment_layers(garment: np.ndarray, draw: dict[str, float], size: int) -> np.ndarray:
    """The garment's gray levels and its opacity in the scene, [size, size, 2] uint8."""
    garment = garment[:, ::-1] if draw["garment_flip"] < 0.5 else garment
    # The scene is a window on a canvas with the garment at its center. Resampling the window places
    # the garment with subpixel accuracy, at the same position for any size. The third channel is
    # empty, because Pillow premultiplies two-channel images when it resamples them.
    canvas = np.zeros((3 * _GARMENT, 3 * _GARMENT, 3), np.uint8)
    inside = slice(_GARMENT, 2 * _GARMENT)
    canvas[inside, inside, 0] = garment
    canvas[inside, inside, 1] = np.minimum(garment, _OPAQUE_FROM) * (255 / _OPAQUE_FROM)
    side = _GARMENT / _between(_GARMENT_SCALE, draw["garment_scale"])
    left = _GARMENT - draw["garment_x"] * (side - _GARMENT)
    top = _GARMENT - draw["garment_y"] * (side - _GARMENT)
    window = Image.fromarray(canvas)
    return _resample(window, left, top, side, size, Image.Resampling.BICUBIC)[..., :2]


def _resample(image, left: float, top: float, side: float, size: int, filter_) -> np.ndarray:
    """A square window of an image, antialiased: [size, size, 3] uint8."""
    box = (left, top, left + side, top + side)
    # `reducing_gap` first averages whole pixels when downsampling: a quarter of the time.
    return np.asarray(image.resize((size, size), filter_, box=box, reducing_gap=1.5))


def _boxes(segmentation: np.ndarray) -> np.ndarray:
    """[N, 4] float32 extents (ymin, xmin, ymax, xmax) of masks [N, S, S], in [0, 1]."""
    size = segmentation.shape[1]
    rows, columns = segmentation.any(2), segmentation.any(1)
    first = [rows.argmax(1), columns.argmax(1)]
    last = [size - rows[:, ::-1].argmax(1), size - columns[:, ::-1].argmax(1)]
    return (np.stack(first + last, 1) / size).astype(np.float32)


def _between(limits: tuple[float, float], u):
    return limits[0] + (limits[1] - limits[0]) * u
