"""Small clips that ship with the library: a garment that moves over a photograph.

Garments and photographs are those of `fashion_scenes`. A garment moves at a constant speed to the
right, down, to the left or up; one frame alone does not tell where. A clip is a function of (seed,
split, index), rendered when it is read.
"""

from collections.abc import Sequence

import numpy as np

from mae_jax.data.random import hash_words, uniform
from mae_jax.data.rendered import check_integers
from mae_jax.data.scene_parts import (
    BRIGHTNESS,
    SHADING,
    TINT,
    Ingredients,
    between,
    garment_layers,
    load,
    photograph_crop,
)
from mae_jax.data.sources import Source
from mae_jax.data.sources.fashion_scenes import CLASS_NAMES, MAX_SIZE, MIN_SIZE, SPLITS
from mae_jax.spec import check_choice

DIRECTIONS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}
"""Name -> (y, x)."""
LABELS = {"class": CLASS_NAMES, "direction": tuple(DIRECTIONS)}
MAX_FRAMES = 256

_SCALE = (0.5, 0.65)  # side of the garment's square over that of the frame
_DISTANCE = (0.5, 1.0)  # way in the whole clip over the room that the square leaves

# Uniform numbers of a clip, in the order drawn. Append new ones, or all clips change.
_DRAWS = ("photograph", "crop_scale", "crop_y", "crop_x", "crop_flip", "brightness", "scale")
_DRAWS += ("direction", "distance", "along", "across", "flip", "red", "green", "blue", "shading")


class FashionClips(Source):
    """Clips that are rendered when they are read, see `make`."""

    def __init__(
        self,
        ingredients: Ingredients,
        *,
        size: int,
        frames: int,
        num_examples: int,
        label: str,
        seeds: tuple[int, int],
    ):
        self.ingredients, self.size, self.frames = ingredients, size, frames
        self.num_examples, self._label, self._seeds = num_examples, label, seeds
        self.names = {"label": LABELS[label]}

    def read(self, indices: np.ndarray) -> dict[str, Sequence]:
        """'image' and 'label', see `make`."""
        indices = np.asarray(indices)
        draws = uniform(hash_words(*self._seeds, indices), len(_DRAWS)).tolist()
        rows = [
            self._render(int(index) % len(self.ingredients.garments), dict(zip(_DRAWS, drawn)))
            for index, drawn in zip(indices, draws, strict=True)
        ]
        images, labels = zip(*rows, strict=True)
        return {"image": np.stack(images), "label": np.array(labels, np.int32)}

    def name(self, index: int) -> str:
        """The number of the clip."""
        return f"[{index}]"

    def _render(self, garment: int, draw: dict[str, float]) -> tuple[np.ndarray, int]:
        """Frames [T, S, S, 3] uint8, and the label."""
        number = int(draw["direction"] * len(DIRECTIONS))
        behind = photograph_crop(self.ingredients.photographs, draw, self.size)
        behind = behind * np.float32(between(BRIGHTNESS, draw["brightness"]))
        tint = np.float32([255 * between(TINT, draw[c]) for c in ("red", "green", "blue")])
        shading = np.float32(between(SHADING, draw["shading"]))
        clip = np.empty((self.frames, self.size, self.size, 3), np.uint8)
        for frame, place in zip(clip, self._places(number, draw), strict=True):
            layers = garment_layers(
                self.ingredients.garments[garment],
                self.size,
                scale=between(_SCALE, draw["scale"]),
                place=place,
                flip=draw["flip"] < 0.5,
            )
            gray, opacity = np.moveaxis(layers / np.float32(255), -1, 0)[..., None]  # [S, S, 1]
            # Gray levels are zero outside the garment: they are multiplied by the opacity.
            color = tint * (shading * gray + (1 - shading) * opacity)
            frame[:] = np.minimum(behind * (1 - opacity) + color, 255) + np.float32(0.5)
        label = number if self._label == "direction" else int(self.ingredients.labels[garment])
        return clip, label

    def _places(self, number: int, draw: dict[str, float]) -> np.ndarray:
        """(y, x) in each frame, [T, 2], as shares of the room that the square leaves."""
        distance = between(_DISTANCE, draw["distance"])
        way = np.linspace(0, distance, self.frames) if self.frames > 1 else np.zeros(1)
        way = draw["along"] * (1 - distance) + way  # from 0 to 1, in the direction of the axis
        y, x = list(DIRECTIONS.values())[number]
        along = way if x + y > 0 else 1 - way
        across = np.full(self.frames, draw["across"])
        return np.stack([across, along] if x else [along, across], axis=1)


def make(
    *,
    split: str = "train",
    size: int = 32,
    frames: int = 8,
    num_examples: int = 4000,
    seed: int = 0,
    label: str = "class",
) -> FashionClips:
    """Clips of a moving garment.

    Clip i shows garment i modulo the number of garments of the split, 12,000 in train and 2,000 in
    test; every ten in a row hold each class once. Within a clip the garment goes half to all of the
    way that its size leaves it, in one of four directions, which are equally likely.

    Args:
        split: 'train' or 'test', which share no garment and no photograph.
        size: side of the frames in pixels, from 16 to 4096.
        frames: number of frames T, from 1 to 256.
        num_examples: number of clips; clip i does not depend on it.
        seed: seed of all clips.
        label: 'class' of the garment, or 'direction', of four.

    Returns:
        A source of 'image' [T, size, size, 3] uint8 and 'label', in [0, 10) or [0, 4).

    Raises:
        UserError: an argument is invalid.
    """
    check_choice("fashion_clips: split", split, SPLITS)
    check_choice("fashion_clips: label", label, LABELS)
    bounds = {"size": (size, MIN_SIZE, MAX_SIZE), "frames": (frames, 1, MAX_FRAMES)}
    check_integers("fashion_clips", bounds | {"num_examples": (num_examples, 1, 2**31)})
    return FashionClips(
        load(split),
        size=size,
        frames=frames,
        num_examples=num_examples,
        label=label,
        seeds=(seed, SPLITS.index(split)),
    )
