"""Small volumes that need no files: textured ellipsoids, with the class of each voxel.

Ellipsoids of three textures (smooth, striped, speckled) hide parts of each other on a cloudy
background. The mean brightness is drawn from one range for all textures, so that a class is known
by its texture, and not by single voxels. A volume is a function of (seed, split, index).
"""

import numpy as np

from mae_jax.data.random import hash_words, uniform
from mae_jax.data.rendered import Rendered, check_integers
from mae_jax.spec import check_choice

CLASS_NAMES = ("smooth", "striped", "speckled")
LABELS = {"texture": CLASS_NAMES, "objects": ("2", "3", "4", "5")}
"""Argument `label` -> names of the classes."""
SPLITS = ("train", "test")
MIN_SIZE, MAX_SIZE = 8, 256

_WAVE = 1 / 8  # length of the stripes, as a share of the side
_OBJECTS = (2, 5)
_RADII = (0.1, 0.3)  # semi-axes, as shares of the side
_BRIGHTNESS, _CONTRAST = (110, 190), 50
_CLOUDS, _NOISE = 5, 30

# Uniform numbers of an ellipsoid, in the order drawn. Append new ones, or all volumes change.
_DRAWS = dict(center=3, radii=3, turn=3, texture=1, brightness=1, phases=3)


class Ellipsoids(Rendered):
    """Volumes that are rendered when they are read, see `make`."""

    def __init__(self, *, label: str, **options):
        super().__init__(**options)
        self._label = label
        self.names = {"label": LABELS[label], "segmentation": ("background", *CLASS_NAMES)}

    def render(self, key: np.uint64) -> tuple[np.ndarray, np.ndarray, int]:
        """See `make`."""
        size = self.size
        places = (np.arange(size, dtype=np.float32) + 0.5) / size
        places = np.stack(np.meshgrid(places, places, places, indexing="ij"))  # [3, S, S, S]
        levels = _clouds(places, uniform(hash_words(key, 0)[None], 4 * _CLOUDS)[0])
        low, high = _OBJECTS
        count = low + int(uniform(hash_words(key, 1)[None], 1)[0, 0] * (high - low + 1))
        drawn = uniform(hash_words(key, 2, np.arange(count)), sum(_DRAWS.values()))
        front = np.zeros((size,) * 3, np.uint8)  # number of the ellipsoid in front, 0 for none
        classes = [0]
        for number, row in enumerate(drawn, 1):
            parts = np.split(row, np.cumsum(list(_DRAWS.values()))[:-1])
            draw = dict(zip(_DRAWS, parts, strict=True))
            classes.append(1 + int(draw["texture"][0] * len(CLASS_NAMES)))
            inside, local = _inside(places, draw)
            front[inside] = number
            levels[inside] = _texture(local, classes[-1], draw)
        noise = uniform(hash_words(key, 3)[None], size**3)[0].reshape(front.shape)
        levels += _NOISE * (noise - 0.5)
        image = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)[..., None]
        segmentation = np.array(classes, np.int32)[front]
        visible = np.bincount(front.ravel(), minlength=count + 1)[1:]
        texture = classes[1 + int(visible.argmax())] - 1
        return image, segmentation, count - low if self._label == "objects" else texture


def _clouds(places: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Background levels [S, S, S] float32 of a few slow waves."""
    levels = np.full(places.shape[1:], 70, np.float32)
    for x, y, z, phase in u.reshape(-1, 4):
        wave = np.float32([4 * x - 2, 4 * y - 2, 4 * z - 2])
        turns = np.tensordot(wave, places, 1) + np.float32(phase)
        levels += 10 * np.cos(2 * np.pi * turns, dtype=np.float32)
    return levels


def _inside(places: np.ndarray, draw: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Voxels [S, S, S] bool of an ellipsoid, and their places [3, n] along its own axes."""
    center = 0.2 + 0.6 * draw["center"]
    radii = _RADII[0] + (_RADII[1] - _RADII[0]) * draw["radii"]
    local = np.tensordot(
        _rotation(draw["turn"]).astype(np.float32),
        places - center.astype(np.float32)[:, None, None, None],
        1,
    )
    inside = ((local / radii.astype(np.float32)[:, None, None, None]) ** 2).sum(0) <= 1
    return inside, local[:, inside]


def _rotation(u: np.ndarray) -> np.ndarray:
    """[3, 3] a uniform rotation from three uniform numbers (Shoemake 1992)."""
    a, b, c = np.sqrt(1 - u[0]), np.sqrt(u[0]), 2 * np.pi * u[1:]
    x, y, z, w = a * np.sin(c[0]), a * np.cos(c[0]), b * np.sin(c[1]), b * np.cos(c[1])
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _texture(local: np.ndarray, number: int, draw: dict[str, np.ndarray]) -> np.ndarray:
    """Levels [n] of a class from 1 on, at places [3, n] along the axes of an ellipsoid."""
    low, high = _BRIGHTNESS
    mean = np.float32(low + (high - low) * draw["brightness"][0])
    turns = local / np.float32(_WAVE) + draw["phases"].astype(np.float32)[:, None]
    waves = np.cos(2 * np.pi * turns, dtype=np.float32)  # [3, n]
    patterns = {1: 0, 2: waves[0], 3: 1.6 * waves.prod(0)}
    return mean + _CONTRAST * patterns[number]


def make(
    *,
    split: str = "train",
    size: int = 32,
    num_examples: int = 4000,
    seed: int = 0,
    label: str = "texture",
) -> Ellipsoids:
    """Volumes of two to five ellipsoids.

    Args:
        split: 'train' or 'test'.
        size: side in voxels, from 8 to 256.
        num_examples: number of volumes; volume i does not depend on it.
        seed: seed of all volumes.
        label: 'texture' of the ellipsoid of which most is visible, of three, or the number of
            'objects', from two to five, which others may hide.

    Returns:
        A source of 'image' [S, S, S, 1] uint8; 'segmentation' [S, S, S] int32, 0 for background and
        1 + class on the ellipsoid in front; and 'label', in [0, 3) or [0, 4).

    Raises:
        UserError: an argument is invalid.
    """
    check_choice("ellipsoids: split", split, SPLITS)
    bounds = {"size": (size, MIN_SIZE, MAX_SIZE), "num_examples": (num_examples, 1, 2**31)}
    check_integers("ellipsoids", bounds)
    check_choice("ellipsoids: label", label, LABELS)
    seeds = (seed, SPLITS.index(split))
    return Ellipsoids(label=label, size=size, num_examples=num_examples, seeds=seeds)
