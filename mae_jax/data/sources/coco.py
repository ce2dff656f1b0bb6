"""Images with objects in the format of COCO (Lin et al. 2014): one JSON file with boxes and masks,
https://cocodataset.org/#format-data.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.data import alpha
from mae_jax.data.decoding import MAX_PIXELS
from mae_jax.data.files import existing, expanded, number
from mae_jax.data.images import Window
from mae_jax.data.object_files import Annotated, Annotation, ObjectImages, polygon
from mae_jax.data.objects import MASK_SIZE, MAX_OBJECTS, coco_masks
from mae_jax.data.reading import Reading
from mae_jax.types import UserError

Row = Mapping[str, Any]


def make(
    images: str,
    annotations: str,
    *,
    max_objects: int = MAX_OBJECTS,
    mask_size: int = MASK_SIZE,
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
) -> ObjectImages:
    """Images with boxes and masks, e.g. coco('val2017', 'annotations/instances_val2017.json').

    Categories become classes 0, 1, ... in the order of their ids. Polygons are drawn by COCO's own
    functions; parts of one object are united. Crowds are kept for evaluations alone, and images
    without objects are used. All annotations are in memory.

    Args:
        images: the folder that file names are relative to.
        annotations: the JSON file.
        max_objects: rows of 'box', 'box_label' and 'box_mask'; of more objects, the largest.
        mask_size: side of the masks in 'box_mask', each cut to its box.
        channels, window, background, max_pixels: of the images, as for `folder`.

    Raises:
        UserError: the file is not of that format; an image has no file; an annotation has no image
            or category; an id occurs twice.
    """
    decoder = Reading(
        "coco", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    root, path = existing("coco", images), expanded(annotations)
    content = _content(path)
    categories = _by_id(path, "category", content["categories"])
    names = [str(categories[key].get("name", key)) for key in sorted(categories)]
    if not names or len({*names}) < len(names):
        raise UserError(f"coco: {path} should list categories with different names, has {names}")
    labels = {key: place for place, key in enumerate(sorted(categories))}
    rows = _by_id(path, "image", content["images"])
    missing = [row for row in rows.values() if not (root / str(row.get("file_name"))).is_file()]
    if missing or not rows:
        first = f", the first is {missing[0].get('file_name')!r}" if missing else ""
        raise UserError(
            f"coco: {path} lists {number(len(rows), 'image')}, of which {len(missing)} are not in "
            f"{str(root)!r}{first}"
        )
    objects: dict[int, list[Annotation]] = {key: [] for key in rows}
    dropped: Counter[str] = Counter()
    for key, row in _by_id(path, "annotation", content["annotations"]).items():
        what = f"coco: {path}: annotation {key}"
        image, category = row.get("image_id"), row.get("category_id")
        if type(image) is not int or image not in rows:
            raise UserError(f"{what} is of image {image!r}, which is not listed")
        if type(category) is not int or category not in labels:
            raise UserError(f"{what} of image {image} has category {category!r}, not listed")
        try:
            found = _annotation(row, labels[category], rows[image], dropped)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            text = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{what} of image {rows[image]['file_name']}: {text}") from error
        objects[image].append(found)
    return ObjectImages(
        "coco",
        root,
        [Annotated(row["file_name"], objects[key], _size(row)) for key, row in rows.items()],
        names,
        decoder,
        max_objects=max_objects,
        mask_size=mask_size,
        notes=[f"left out {number(count, what)}" for what, count in dropped.items()],
    )


def _content(path: Path) -> Row:
    """The content of a JSON file in the format of COCO."""
    lists = ("images", "annotations", "categories")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"coco: cannot read {str(path)!r}: {error}") from error
    valid = isinstance(content, dict)
    if not valid or not all(isinstance(content.get(name), list) for name in lists):
        raise UserError(f"coco: {path} should have the lists {', '.join(lists)}")
    return content


def _by_id(path: Path, what: str, rows: list) -> dict[int, Row]:
    """Rows by their ids, or a UserError if one occurs twice."""
    found: dict[int, Row] = {}
    for place, row in enumerate(rows):
        key = row.get("id") if isinstance(row, dict) else None
        if type(key) is not int or key in found:
            problem = "is there twice" if type(key) is int else "is no integer"
            raise UserError(f"coco: {path}: the id {key!r} of {what} [{place}] {problem}")
        found[key] = row
    return found


def _size(image: Row) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (int(height), int(width)) if height and width else None


def _annotation(row: Row, label: int, image: Row, dropped: Counter[str]) -> Annotation:
    """An object; polygons of fewer than three points are counted.

    Raises:
        ValueError, TypeError, KeyError, RuntimeError: it is not of the format.
    """
    x, y, width, height = np.array(row["bbox"], np.float64).tolist()
    area = row.get("area")
    area = width * height if area is None else float(area)
    if not np.isfinite([x, y, width, height, area]).all():
        raise ValueError("its box or area is not finite")
    shape, parts = row.get("segmentation") or [], []
    if isinstance(shape, dict):
        parts = [_run_lengths(shape, _size(image))]
    else:
        for points in map(polygon, shape):
            if points is None:
                dropped["polygon of fewer than three points"] += 1
            else:
                parts.append(points)
    return Annotation(
        (y, x, y + height, x + width), label, tuple(parts), area, bool(row.get("iscrowd", 0))
    )


def _run_lengths(mask: Row, size: tuple[int, int] | None) -> dict[str, Any]:
    """Compressed run lengths of a mask."""
    height, width = map(int, mask["size"])
    if size not in (None, (height, width)):
        raise ValueError(f"its mask has the size {[height, width]}, and the image {list(size)}")
    counts = mask["counts"]
    if isinstance(counts, list):
        if sum(counts) != height * width:
            raise ValueError(f"its run lengths have {sum(counts)} pixels, not {height * width}")
        return coco_masks().frPyObjects({"size": [height, width], "counts": counts}, height, width)
    rle = {"size": [height, width], "counts": str(counts).encode()}
    coco_masks().decode(rle)  # raises if they are damaged
    return rle
