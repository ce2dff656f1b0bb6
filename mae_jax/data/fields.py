"""The fields of a batch: their types, how transforms move them with the image, and their value
outside the image. Unknown fields pass through unchanged.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from mae_jax.data import box_masks
from mae_jax.data.images import BadImage, Encoded
from mae_jax.spec import check_choice
from mae_jax.types import IGNORE

NO_BOX = -1
"""Label of padding in 'box_label'."""

MOVES = ("pixels", "nearest", "boxes", "none")
"""How a geometric transform moves a field: interpolated, by nearest neighbor, as boxes, or not."""

HOLDS = ("classes", "presence", "numbers")
"""Labels in a field: class numbers; 1, 0 or `IGNORE` (unknown) per class; or finite numbers."""

OWN = "(fields)"
"""Key of an example for the `Field`s that its source declares, if any."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """Type and geometry of one field."""

    dtype: type | None = None
    """Type in batches; None: as in the source."""
    move: str = "none"
    """One of `MOVES`. Boxes are [..., 4] (ymin, xmin, ymax, xmax) as fractions of height and width,
    zeros for padding; for images of other ranks, all lower ends, then all upper ends."""
    fill: int = 0
    """Value outside the image if `move` is 'nearest'."""
    holds: str = "classes"
    """What labels a task may learn from it, one of `HOLDS`."""
    optional: bool = False
    """Whether batches of a source without the field lack it, though `config.data.fields` names it.
    Tasks and evaluators that read it are refused then."""

    def __post_init__(self):
        check_choice("move", self.move, MOVES)
        check_choice("holds", self.holds, HOLDS)


FIELDS: Mapping[str, Field] = {
    "image": Field(move="pixels"),  # [*space, C], usually uint8, or encoded
    "label": Field(dtype=np.int32, optional=True),
    "labels": Field(dtype=np.uint8, holds="presence", optional=True),  # [K], several classes
    "value": Field(dtype=np.float32, holds="numbers", optional=True),  # [] or [V], regression
    "weight": Field(dtype=np.float32, holds="numbers", optional=True),  # of an example in the loss
    "group": Field(dtype=np.int32, optional=True),  # index of its patient, site, ...
    "segmentation": Field(dtype=np.int32, move="nearest", fill=IGNORE),  # [*space], classes
    "box": Field(dtype=np.float32, move="boxes"),
    "box_label": Field(dtype=np.int32),  # NO_BOX for padding
    "box_mask": Field(dtype=np.uint8),  # [n, m, m], 0 to 255: masks cut to 'box', moved with it
    "text": Field(dtype=np.int32, optional=True),  # [T], numbers of tokens, 0 after the last one
    "text_valid": Field(dtype=np.bool_, optional=True),  # [T], False after the last token
}


OPTIONAL = tuple(name for name, field in FIELDS.items() if field.optional)
"""Fields that sources may lack."""


def of(name: str, more: Mapping[str, Field] = MappingProxyType({})) -> Field:
    """The `Field` of a name, see `ignored`."""
    return {**more, **FIELDS}.get(name, Field())


def ignored(name: str, more: Mapping[str, Field] = MappingProxyType({})) -> int | None:
    """The value of a field that means no class; None if there is none.

    Args:
        name: the field.
        more: fields that the source declares, besides FIELDS.
    """
    if name == "box_label":
        return NO_BOX
    field = of(name, more)
    return field.fill if field.move == "nearest" else None


class Geometry(Protocol):
    """A geometric transform; see `geometry` for implementations."""

    def pixels(self, values: np.ndarray | Encoded) -> np.ndarray:
        """[*space, C], interpolated."""

    def nearest(self, values: np.ndarray, field: Field) -> np.ndarray:
        """[*space, ...], by nearest neighbor; `field.fill` outside the image."""

    def boxes(self, boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Boxes of an image of this shape [*space], clipped to the result; zeros if outside."""

    def back(self, points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Points [..., axes] in the result -> points in an image of this shape [*space], as
        fractions of their sizes.
        """


def move(example: Mapping[str, Any], geometry: Geometry) -> dict[str, Any]:
    """Applies a geometric transform to the image and all fields that move with it. Boxes outside
    the result, and those whose mask is, become padding.

    Raises:
        BadImage: a field and the image differ in size.
    """
    shape, moved = space_of(example["image"]), dict(example)
    for name, field in {**example.get(OWN, {}), **FIELDS}.items():
        if name not in example:
            continue
        if field.move == "pixels":
            moved[name] = geometry.pixels(example[name])
        elif field.move == "nearest":
            size = example[name].shape
            if size[: len(shape)] != shape:
                raise BadImage(f"its {name} is {size}, the image {shape}")
            moved[name] = geometry.nearest(example[name], field)
        elif field.move == "boxes":
            boxes = np.asarray(example[name], np.float64)
            moved[name] = geometry.boxes(boxes, shape).astype(np.float32)
    return moved | (_with_box(example, geometry, shape) if "box" in example else {})


def _with_box(example: Mapping[str, Any], geometry: Geometry, shape: tuple[int, ...]) -> dict:
    """'box' [n, 4] and the fields that follow it: 'box_mask', if it is drawn, and 'box_label'."""
    old = np.asarray(example["box"], np.float64)
    boxes, masks = geometry.boxes(old, shape), example.get("box_mask")
    following = {}
    if isinstance(masks, np.ndarray):
        back = functools.partial(geometry.back, shape=shape)
        following["box_mask"], boxes = box_masks.moved(masks, old, boxes, back)
    labels = np.asarray(example.get("box_label", NO_BOX))
    if labels.shape == boxes.shape[:-1] and boxes.ndim == 2:
        rank = boxes.shape[1] // 2
        filled = (boxes[:, :rank] < boxes[:, rank:]).all(1)
        following["box_label"] = np.where(filled, labels, NO_BOX)
    return {"box": boxes.astype(np.float32), **following}


def space_of(image: np.ndarray | Encoded) -> tuple[int, ...]:
    """Shape of an image without the channels, e.g. (height, width)."""
    return image.shape if isinstance(image, Encoded) else image.shape[:-1]


def boxes_from_centers(boxes: np.ndarray) -> np.ndarray:
    """Converts YOLO boxes [n, 4] (x, y, width, height) of centers to (ymin, xmin, ymax, xmax)."""
    center, half = boxes[:, [1, 0]], boxes[:, [3, 2]] / 2  # (y, x), [n, 2]
    return np.clip(np.concatenate([center - half, center + half], axis=1), 0, 1)
