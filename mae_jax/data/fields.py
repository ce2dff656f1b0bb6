"""The fields of a batch: their types, how a transform moves them with the image, and what fills
them where an image ends. A field that no table knows passes through as it is.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from mae_jax.data.images import BadImage, Encoded
from mae_jax.spec import check_choice
from mae_jax.types import IGNORE

NO_BOX = -1
"""In labels of boxes: beside a box that is none."""

MOVES = ("pixels", "nearest", "boxes", "none")
"""How geometry moves a field: by interpolation, by nearest neighbors, as boxes, or not at all."""

OWN = "(fields)"
"""Where an example holds the `Field`s of its source that `FIELDS` does not know, if any."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One field of the examples of a source."""

    dtype: type | None = None
    """In batches; None: that of the source."""
    move: str = "none"
    """One of `MOVES`. Boxes are [..., 4] (ymin, xmin, ymax, xmax) as shares of the height and
    width, all zeros for none; with other ranks, the lower then the upper end of each axis."""
    fill: int = 0
    """Of 'nearest': what comes from outside the image."""

    def __post_init__(self):
        check_choice("move", self.move, MOVES)


FIELDS: Mapping[str, Field] = {
    "image": Field(move="pixels"),  # [*space, C], uint8 usual, or encoded
    "label": Field(dtype=np.int32),
    "segmentation": Field(dtype=np.int32, move="nearest", fill=IGNORE),  # [*space], classes
    "box": Field(dtype=np.float32, move="boxes"),
    "box_label": Field(dtype=np.int32),  # -1 beside a box that is none
    "text": Field(dtype=np.int32),  # [L], tokens
}


def ignored(name: str, more: Mapping[str, Field] = MappingProxyType({})) -> int | None:
    """The value of a field that stands for no class; None: there is none.

    Args:
        more: fields of a source that FIELDS does not know.
    """
    if name == "box_label":
        return NO_BOX
    field = {**more, **FIELDS}.get(name, Field())
    return field.fill if field.move == "nearest" else None


class Geometry(Protocol):
    """Moves the content of an image; see `geometry`."""

    def pixels(self, values: np.ndarray | Encoded) -> np.ndarray:
        """[*space, C], interpolated."""

    def nearest(self, values: np.ndarray, field: Field) -> np.ndarray:
        """[*space, ...], by nearest neighbors; `field.fill` from outside."""

    def boxes(self, boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Boxes as shares of an image of this shape [*space], clipped; zeros if nothing is left."""


def move(example: Mapping[str, Any], geometry: Geometry) -> dict[str, Any]:
    """The example with its image moved, and all fields that move with it.

    Raises:
        BadImage: a field is not as large as the image.
    """
    shape, moved = space_of(example["image"]), dict(example)
    for name, field in {**example.get(OWN, {}), **FIELDS}.items():
        if name not in example:
            continue
        if field.move == "pixels":
            moved[name] = geometry.pixels(example[name])
        elif field.move == "nearest":
            found = example[name].shape
            if found[: len(shape)] != shape:
                raise BadImage(f"its {name} is {found}, the image {shape}")
            moved[name] = geometry.nearest(example[name], field)
        elif field.move == "boxes":
            boxes = np.asarray(example[name], np.float64)
            moved[name] = geometry.boxes(boxes, shape).astype(np.float32)
    return moved


def space_of(image: np.ndarray | Encoded) -> tuple[int, ...]:
    """The sizes of an image's axes but the channels: (height, width)."""
    return image.shape if isinstance(image, Encoded) else image.shape[:-1]


def boxes_from_centers(boxes: np.ndarray) -> np.ndarray:
    """[n, 4] (x, y, width, height) as shares, of the center as in YOLO, to the boxes of a batch."""
    center, half = boxes[:, [1, 0]], boxes[:, [3, 2]] / 2
    return np.clip(np.concatenate([center - half, center + half], axis=1), 0, 1)
