"""Small scenes that ship with the library: a tinted garment on a crop of a photograph.

Garments of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017) are scaled, flipped, placed and composited on
real photographs, so each scene has a label, an exact mask and a box; with `objects`, several
garments occlude one another, each with its class and box. A scene is a function of (seed, split,
index); `size` only sets its resolution. Sources of the ingredients:
`mae_jax/data/fashion_scenes_assets/SOURCES.md`.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mae_jax.data.objects import check_mask_size
from mae_jax.data.random import hash_words, uniform
from mae_jax.data.scene_captions import DRAWS, Scene, caption, vocabulary
from mae_jax.data.scene_parts import (
    BRIGHTNESS,
    GARMENT_SCALE,
    SHADING,
    TINT,
    between,
    garment_layers,
    load,
    photograph_crop,
)
from mae_jax.data.scenes import Scenes
from mae_jax.data.sources import Arrays, Source
from mae_jax.data.tokens import LENGTH, Tokens
from mae_jax.spec import check_choice
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
SIZES = ("smallest", "small", "medium", "large", "largest")
"""Ordered classes of the garment's size, of equal width."""
LABELS = {"class": CLASS_NAMES, "size": SIZES}
SPLITS = ("train", "test")
MIN_SIZE, MAX_SIZE = 16, 4096
MAX_OBJECTS = 32

_BRIGHTNESS, _TINT, _SHADING = BRIGHTNESS, TINT, SHADING
_CAPTION = 1  # stream of the numbers that choose the words of captions
_CHUNK = 256  # scenes rendered at a time, to keep float buffers small

# The uniform numbers of a scene, in the order drawn. Append new ones, or all scenes change.
_DRAWS = (
    *("photograph", "crop_scale", "crop_y", "crop_x", "crop_flip", "brightness"),
    *("garment_scale", "garment_y", "garment_x", "garment_flip"),
    *("red", "green", "blue", "shading"),
)


def make(
    *,
    split: str = "train",
    size: int = 32,
    num_examples: int | None = None,
    seed: int = 0,
    objects: tuple[int, int] | None = None,
    mask_size: int = 28,
    label: str = "class",
    captions: bool = False,
    length: int = LENGTH,
) -> Source:
    """Composes one split of the data set: of one garment each in memory, of several when read.

    Scene i of one garment shows garment i modulo the number of garments of the split (12,000 in
    train, 2,000 in test, balanced; every ten in a row hold each class once). Scenes of several
    garments show random ones. Scene i does not depend on `num_examples`. The splits share no
    garment and no photograph.

    Args:
        split: 'train' or 'test'.
        size: side of the square images in pixels, at least 16.
        num_examples: number of scenes; None: one per garment. More scenes repeat garments in other
            compositions.
        seed: seed of the compositions.
        objects: (fewest, most) garments in a scene, such as (1, 6); None: one, with a label.
        mask_size: side of the masks in 'box_mask', from 1 to 512.
        label: 'class' of the one garment, or 'size', five ordered classes of its 'value'.
        captions: whether each scene of one garment has a caption, see `data.scene_captions`.
        length: tokens of a caption; of longer ones the first are used, and their end.

    Returns:
        Of one garment, an `Arrays` of 'image' [N, size, size, 3] uint8; 'label' [N] int32, in
        [0, 10), or [0, 5) of sizes; 'value' [N] float32 in [0.5, 0.9], the side of the garment's
        square over that of the scene; 'segmentation' [N, size, size] bool, the pixels that the
        garment covers at half opacity or more; 'box' [N, 4] float32, the extent (ymin, xmin, ymax,
        xmax) of the segmentation as fractions of the image, in [0, 1]; with captions 'text' [N,
        length] int32, in the words of a `vocabulary` of the scenes, and 'text_valid' [N, length]
        bool.

        Of several, a `Source` of 'image'; 'segmentation' [N, size, size] uint8, 0 for background
        and 1 + class where a garment is in front; 'box' [N, most, 4] float32, the extents of what
        is visible of each garment, from back to front, zeros after the last; 'box_label'
        [N, most] int32, in [0, 10), -1 after the last; 'labels' [N, 10] uint8, 1 for the classes of
        garments that are visible; and 'box_mask' [N, most, mask_size,
        mask_size] uint8, what is visible of each garment within its box, drawn only for batches
        that hold it.

    Raises:
        UserError: an argument is invalid.
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
    check_mask_size("fashion_scenes", mask_size)
    check_choice("fashion_scenes: label", label, LABELS)
    if objects is not None and label != "class":
        raise UserError(f"fashion_scenes: label={label!r} is for one garment: leave objects out")
    if captions and objects is not None:
        raise UserError("fashion_scenes: captions=True is for one garment: leave objects out")
    count = num_examples or len(load(split).garments)
    if objects is None:
        source = _single(split, size, count, seed, label)
        return _captioned(source, split, seed, length) if captions else source
    return Scenes(
        load(split),
        CLASS_NAMES,
        size=size,
        num_examples=count,
        objects=_range(objects),
        mask_size=mask_size,
        seeds=(seed, SPLITS.index(split)),
    )


def _range(objects) -> tuple[int, int]:
    """Two whole numbers in ascending order, or a UserError."""
    valid = isinstance(objects, Sequence) and len(objects) == 2
    valid = valid and all(type(count) is int for count in objects)
    if not valid or not 1 <= objects[0] <= objects[1] <= MAX_OBJECTS:
        raise UserError(
            f"fashion_scenes cannot have objects={objects!r}: use (fewest, most) from 1 to "
            f"{MAX_OBJECTS}, such as (1, 6), or None for one garment with a label"
        )
    return tuple(objects)


def _single(split: str, size: int, count: int, seed: int, label: str) -> Arrays:
    """All scenes of one garment, see `make`."""
    ingredients = load(split)
    indices = np.arange(count)
    draws = uniform(hash_words(seed, SPLITS.index(split), indices), len(_DRAWS))
    image = np.empty((len(indices), size, size, 3), np.uint8)
    segmentation = np.empty((len(indices), size, size), bool)
    garment = indices % len(ingredients.garments)
    for start in range(0, len(indices), _CHUNK):
        rows = slice(start, start + _CHUNK)
        image[rows], segmentation[rows] = _render(
            ingredients.garments[garment[rows]], ingredients.photographs, draws[rows], size
        )
    share = draws[:, _DRAWS.index("garment_scale")]  # [N] in [0, 1)
    sizes = (share * len(SIZES)).astype(np.int32)
    fields = {"image": image, "label": sizes if label == "size" else ingredients.labels[garment]}
    fields |= {"value": between(GARMENT_SCALE, share).astype(np.float32)}
    fields |= {"segmentation": segmentation, "box": _boxes(segmentation)}
    return Arrays(fields, {"label": LABELS[label], "segmentation": ("background", "garment")})


def _captioned(source: Arrays, split: str, seed: int, length: int) -> Arrays:
    """Adds captions to scenes of one garment."""
    ingredients, indices = load(split), np.arange(source.num_examples)
    words = (seed, SPLITS.index(split), indices)
    drawn = uniform(hash_words(*words), len(_DRAWS)).tolist()
    chosen = uniform(hash_words(*words, _CAPTION), len(DRAWS)).tolist()
    labels = ingredients.labels[indices % len(ingredients.garments)].tolist()

    def text(label: int, scene: list[float], choice: list[float]) -> str:
        draw, names = dict(zip(_DRAWS, scene)), ingredients.photograph_names
        photograph = names[int(draw["photograph"] * len(names))]
        return caption(Scene(label, photograph, draw), dict(zip(DRAWS, choice)))

    texts = map(text, labels, drawn, chosen)
    tokens = Tokens(vocabulary(), texts, length=length, where="fashion_scenes")
    source.arrays |= tokens.read(indices)
    source.vocabulary, source.notes = tokens.vocabulary, tokens.notes()
    source.digest = tokens.digest
    return source


def photographs(split: str) -> tuple[Image.Image, ...]:
    """The backgrounds of a split, RGB, 256 pixels at their shorter side."""
    return load(split).photographs


def _render(garments: np.ndarray, photographs, draws: np.ndarray, size: int):
    """Images [B, size, size, 3] uint8 and segmentations [B, size, size] bool."""
    rows = [dict(zip(_DRAWS, row)) for row in draws.tolist()]
    background = np.stack([photograph_crop(photographs, row, size) for row in rows])
    layers = np.stack([_layers(garment, row, size) for garment, row in zip(garments, rows)])
    gray, opacity = np.moveaxis(layers.astype(np.float32) / np.float32(255), -1, 0)[..., None]

    draw = dict(zip(_DRAWS, draws.astype(np.float32).T[..., None, None, None]))
    tint = np.concatenate([draw["red"], draw["green"], draw["blue"]], -1)
    shading = between(_SHADING, draw["shading"])
    # Gray levels are zero outside the garment, so they are already multiplied by the opacity.
    garment = between(_TINT, tint) * (shading * gray + (1 - shading) * opacity)
    behind = background * between(_BRIGHTNESS, draw["brightness"]) * (1 - opacity)
    image = np.minimum(behind + 255 * garment, 255)
    return (image + np.float32(0.5)).astype(np.uint8), opacity[..., 0] >= 0.5


def _layers(garment: np.ndarray, draw: dict[str, float], size: int) -> np.ndarray:
    """The garment's gray levels and its opacity in the scene, [size, size, 2] uint8."""
    return garment_layers(
        garment,
        size,
        scale=between(GARMENT_SCALE, draw["garment_scale"]),
        place=(draw["garment_y"], draw["garment_x"]),
        flip=draw["garment_flip"] < 0.5,
    )


def _boxes(segmentation: np.ndarray) -> np.ndarray:
    """[N, 4] float32 extents (ymin, xmin, ymax, xmax) of masks [N, S, S], in [0, 1]."""
    size = segmentation.shape[1]
    rows, columns = segmentation.any(2), segmentation.any(1)
    first = [rows.argmax(1), columns.argmax(1)]
    last = [size - rows[:, ::-1].argmax(1), size - columns[:, ::-1].argmax(1)]
    return (np.stack(first + last, 1) / size).astype(np.float32)
