"""Scenes of several garments that hide parts of each other, rendered when they are read.

Like those of one garment, a scene is a function of (seed, split, index); see
`sources/fashion_scenes.py`, which makes both.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mae_jax.data.objects import Objects, training_fields
from mae_jax.data.random import hash_words, uniform
from mae_jax.data.scene_parts import (
    BRIGHTNESS,
    GARMENT,
    SHADING,
    TINT,
    Ingredients,
    between,
    garment_canvas,
    photograph_crop,
    resample,
)
from mae_jax.data.sources import Source

_SCALE = (0.3, 0.65)  # side of a garment's square over the side of the scene

# The uniform numbers behind a scene, and behind each of its garments, in the order drawn: new ones
# go last, or all scenes change.
_SCENE = ("photograph", "crop_scale", "crop_y", "crop_x", "crop_flip", "brightness", "objects")
_OBJECT = ("garment", "scale", "y", "x", "flip", "red", "green", "blue", "shading")


class Scenes(Source):
    """Several garments in each image.

    Args:
        ingredients: of the split.
        class_names: of the garments.
        size: side of the images in pixels.
        num_examples: how many scenes.
        objects: (fewest, most) garments in a scene, uniform.
        mask_size: side of the masks in 'box_mask'.
        seeds: words that seed the scenes, beside their indices.
    """

    def __init__(
        self,
        ingredients: Ingredients,
        class_names: Sequence[str],
        *,
        size: int,
        num_examples: int,
        objects: tuple[int, int],
        mask_size: int,
        seeds: tuple[int, ...],
    ):
        self.ingredients, self.size, self.num_examples = ingredients, size, num_examples
        self.objects, self.mask_size, self._seeds = objects, mask_size, seeds
        self.names = {
            "segmentation": ("background", *class_names),
            "box_label": tuple(class_names),
            "labels": tuple(class_names),
        }

    def read(self, indices: np.ndarray) -> dict[str, Sequence[Any]]:
        """'image', 'segmentation', 'box', 'box_label', 'box_mask' and 'labels'; see
        `fashion_scenes.make`.
        """
        keys = hash_words(*self._seeds, np.asarray(indices))  # [n]
        # Number 0 belongs to the scene, the others to its garments.
        scenes = uniform(hash_words(keys, 0), len(_SCENE)).tolist()
        places = np.arange(1, self.objects[1] + 1)
        objects = uniform(hash_words(keys[:, None], places).ravel(), len(_OBJECT))
        objects = objects.reshape(len(keys), len(places), -1).tolist()  # [n, most, draws]
        rows = [self._render(*drawn) for drawn in zip(scenes, objects, strict=True)]
        fields = {name: [row[name] for row in rows] for name in rows[0]}
        stack = lambda x: np.stack(x) if isinstance(x[0], np.ndarray) else x
        return {name: stack(values) for name, values in fields.items()}

    def name(self, index: int) -> str:
        """The number of the scene."""
        return f"[{index}]"

    def _render(self, scene: list[float], objects: list[list[float]]) -> dict[str, Any]:
        """The fields of one scene: image [S, S, 3] uint8, segmentation [S, S] uint8, ..."""
        draw = dict(zip(_SCENE, scene))
        behind = photograph_crop(self.ingredients.photographs, draw, self.size)
        image = behind * np.float32(between(BRIGHTNESS, draw["brightness"]))
        fewest, most = self.objects
        visible = np.zeros(image.shape[:2], np.uint8)  # the number of the garment in front, or 0
        labels = []
        for drawn in objects[: fewest + int(draw["objects"] * (most - fewest + 1))]:
            draw = dict(zip(_OBJECT, drawn))
            garment = int(draw["garment"] * len(self.ingredients.garments))
            labels.append(int(self.ingredients.labels[garment]))
            self._paint(image, visible, self.ingredients.garments[garment], draw, len(labels))
        classes = np.array([0, *(label + 1 for label in labels)], np.uint8)
        pixels = (image + np.float32(0.5)).astype(np.uint8)
        objects = visible_objects(visible, labels)
        boxes = training_fields(
            objects, np.arange(len(objects.boxes)), self.objects[1], self.mask_size
        )
        present = np.isin(np.arange(len(self.names["labels"])), objects.labels).astype(np.uint8)
        return {"image": pixels, "segmentation": classes[visible], **boxes, "labels": present}

    def _paint(self, image, visible, garment, draw: dict[str, float], number: int) -> None:
        """Puts a garment in front of what an image [S, S, 3] float32 shows already."""
        side = self.size * between(_SCALE, draw["scale"])
        starts = [draw[axis] * (self.size - side) for axis in ("y", "x")]
        # Whole pixels that hold the garment, one more on each side for what resampling blurs.
        low = [max(0, int(start) - 1) for start in starts]
        high = [min(self.size, int(start + side) + 2) for start in starts]
        (top, left), (bottom, right) = (
            [GARMENT + (end - start) * GARMENT / side for end, start in zip(ends, starts)]
            for ends in (low, high)
        )
        canvas = garment_canvas(garment, flip=draw["flip"] < 0.5)
        shape = (high[0] - low[0], high[1] - low[1])
        layers = resample(canvas, (left, top, right, bottom), shape, Image.Resampling.BICUBIC)
        gray, opacity = np.moveaxis(layers / np.float32(255), -1, 0)[:2, ..., None]  # [h, w, 1]
        tint = np.array([between(TINT, draw[color]) for color in ("red", "green", "blue")])
        shading = np.float32(between(SHADING, draw["shading"]))
        # Gray levels are zero where there is no garment: the opacity is in them already.
        color = np.float32(255 * tint) * (shading * gray + (1 - shading) * opacity)
        part = np.s_[low[0] : high[0], low[1] : high[1]]
        image[part] = np.minimum(image[part] * (1 - opacity) + color, 255)
        visible[part][opacity[..., 0] >= 0.5] = number


def visible_objects(visible: np.ndarray, labels: Sequence[int]) -> Objects:
    """What can be seen of the objects of a scene; those that are hidden are left out.

    Args:
        visible: [S, S] the number of the object in front, or 0.
        labels: classes of the objects 1, 2, ...
    """
    numbers, boxes = [], []
    for number in range(1, len(labels) + 1):
        rows, columns = ((visible == number).any(axis).nonzero()[0] for axis in (1, 0))
        if len(rows):
            numbers.append(number)
            boxes.append((rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))
    return Objects(
        size=visible.shape,
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        labels=np.array([labels[number - 1] for number in numbers], np.int64),
        areas=np.bincount(visible.ravel(), minlength=len(labels) + 1)[numbers].astype(np.float64),
        crowd=np.zeros(len(numbers), bool),
        mask=lambda index: visible == numbers[index],
    )
