"""Images with objects in the format of labelme (Wada, https://github.com/wkentaro/labelme): a JSON
file with polygons, rectangles, circles and masks for each.
"""

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mae_jax.data import alpha
from mae_jax.data.class_ids import Classes, class_names
from mae_jax.data.decoding import MAX_PIXELS, extensions
from mae_jax.data.files import find, number, read_bytes
from mae_jax.data.images import BadImage, Window, decode_mask
from mae_jax.data.object_files import (
    MAX_CLASSES,
    Annotated,
    Annotation,
    ObjectImages,
    Part,
    corners,
    extent,
    numbered,
    polygon,
)
from mae_jax.data.objects import MASK_SIZE, MAX_OBJECTS, encode
from mae_jax.data.reading import Reading
from mae_jax.types import UserError

IGNORED = "__ignore__"
"""Label of shapes that are no objects."""
_CIRCLE = 64  # corners of the polygon that stands for a circle


class _Shape(NamedTuple):
    label: str
    group: Any
    """Shapes with the same label and group are one object; None: the shape is an object."""
    box: tuple[float, float, float, float]
    parts: tuple[Part, ...]
    """Empty for a rectangle, whose mask is its box."""


def make(
    path: str,
    *,
    classes: Classes = None,
    max_objects: int = MAX_OBJECTS,
    mask_size: int = MASK_SIZE,
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
) -> ObjectImages:
    """The images of the JSON files in a folder, with boxes and masks, e.g. labelme('annotated').

    Polygons are drawn by COCO's functions. Shapes with the same group and label are parts of one
    object. Points and lines are left out and counted, and so are shapes labeled '__ignore__'. Where
    there are rectangles alone, there are no masks. All annotations are in memory.

    Args:
        path: the folder. Paths of images are relative to their JSON file.
        classes: how many, their names, or a text file with a name on each line; None: the labels
            that occur, sorted.
        max_objects: rows of 'box', 'box_label' and 'box_mask'; of more objects, the largest.
        mask_size: side of the masks in 'box_mask', each cut to its box.
        channels, window, background, max_pixels: of the images, as for `folder`.

    Raises:
        UserError: a file is not of that format, has no image, or a label that is no class.
    """
    decoder = Reading(
        "labelme", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    names = class_names("labelme", classes, most=MAX_CLASSES) if classes is not None else ()
    # Images are beside their files, as a rule: they are not counted as files of other kinds.
    none = dict.fromkeys(extensions())
    wanted = lambda file: none.get(file.suffix.lower(), file.suffix == ".json")
    files = find("labelme", path, wanted, "*.json")
    left_out: Counter[str] = Counter()
    found = [_read(files.path(place), left_out) for place in range(len(files))]
    labels = numbered("labelme", [s.label for _, _, shapes in found for s in shapes], names)
    items = []
    for place, (image, size, shapes) in enumerate(found):
        if other := [s.label for s in shapes if s.label not in labels]:
            raise UserError(
                f"labelme: {files.path(place)} has the label {other[0]!r}, not in "
                f"{list(labels)[:8]}"
            )
        file = Path(files[place]).parent / image
        if not (files.root / file).is_file():
            raise UserError(f"labelme: {files.path(place)} is of {image!r}: there is no such file")
        items.append(Annotated(file.as_posix(), _joined(shapes, labels), size))
    notes = [note for note in files.notes if note not in files.no_classes]
    return ObjectImages(
        "labelme",
        files.root,
        items,
        tuple(labels),
        decoder,
        max_objects=max_objects,
        mask_size=mask_size,
        boxes_are_masks=True,
        notes=[*notes, *(f"left out {number(n, what)}" for what, n in left_out.items())],
    )


def _read(path: Path, left_out: Counter[str]) -> tuple[str, tuple[int, int] | None, list[_Shape]]:
    """The path of an image, its size (height, width) if it is there, and its shapes."""
    place = None
    try:
        content = json.loads(read_bytes(path))
        height, width = content.get("imageHeight"), content.get("imageWidth")
        size = (int(height), int(width)) if height and width else None
        shapes = []
        for place, row in enumerate(content["shapes"]):  # noqa: B007
            shape = _shape(row, size)
            if isinstance(shape, str):
                left_out[shape] += 1
            else:
                shapes.append(shape)
        return str(content["imagePath"]).replace("\\", "/"), size, shapes
    except (BadImage, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        text = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        shown = "" if place is None else f"shape [{place}]: "
        raise UserError(f"labelme: cannot read {path}: {shown}{text}") from error


def _shape(row: dict, size: tuple[int, int] | None) -> _Shape | str:
    """A shape, or why it is left out."""
    kind, label = row.get("shape_type") or "polygon", str(row["label"])
    if label == IGNORED:
        return f"{IGNORED} shape"
    points = np.array(row["points"], np.float64).ravel()
    if not np.isfinite(points).all():
        raise ValueError("its points are not finite")
    group = row.get("group_id")
    if kind == "polygon":
        outline = polygon(points)
        if outline is None:
            return "polygon of fewer than three points"
        return _Shape(label, group, extent(outline), (outline,))
    if kind not in ("rectangle", "circle", "mask"):
        return f"shape that is no area, a {kind}"
    if len(points) != 4:
        raise ValueError(f"a {kind} of {len(points) / 2:g} points has two")
    if kind == "rectangle":
        return _Shape(label, group, extent(points), ())
    if kind == "circle":
        angles = 2 * np.pi * np.arange(_CIRCLE) / _CIRCLE
        radius = np.hypot(*(points[2:] - points[:2]))
        rim = points[:2] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return _Shape(label, group, extent(rim.ravel()), (rim.ravel(),))
    return _bitmap(row, label, group, points, size)


def _bitmap(row: dict, label: str, group, points: np.ndarray, size) -> _Shape:
    """The shape of a mask within a box of whole pixels."""
    if size is None:
        raise ValueError("a mask needs imageHeight and imageWidth")
    mask = decode_mask(base64.b64decode(row["mask"])) > 0
    left, top = (int(round(value)) for value in points[:2])
    whole = np.zeros(size, bool)
    part = whole[max(top, 0) : top + mask.shape[0], max(left, 0) : left + mask.shape[1]]
    if min(left, top) < 0 or part.shape != mask.shape:
        raise ValueError(f"its mask reaches out of the image of {size[1]} x {size[0]} pixels")
    part[...] = mask
    rows, columns = (np.flatnonzero(whole.any(axis)) for axis in (1, 0))
    if not len(rows):
        return _Shape(label, group, (0.0, 0.0, 0.0, 0.0), ())  # left out: it has no extent
    box = (float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1))
    return _Shape(label, group, box, tuple(encode(whole[None])))


def _joined(shapes: list[_Shape], labels: dict[str, int]) -> list[Annotation]:
    """The objects, each of one shape or of all with the same group and label."""
    groups: dict[Any, list[_Shape]] = {}
    for place, shape in enumerate(shapes):
        key = ("shape", place) if shape.group is None else (shape.group, shape.label)
        groups.setdefault(key, []).append(shape)
    return [_object(parts, labels[parts[0].label]) for parts in groups.values()]


def _object(shapes: list[_Shape], label: int) -> Annotation:
    boxes = np.array([shape.box for shape in shapes])
    box = (*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist())
    parts = [part for shape in shapes for part in shape.parts]
    if len(shapes) > 1:  # the box of all is not the mask of its rectangles
        parts += [corners(shape.box) for shape in shapes if not shape.parts]
    return Annotation(box, label, tuple(parts))
