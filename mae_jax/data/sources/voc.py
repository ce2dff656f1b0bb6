"""Images with boxes in the format of PASCAL VOC (Everingham et al. 2010): an XML file for each; and
with masks, if there are images of object numbers.
"""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mae_jax.data import alpha
from mae_jax.data.class_ids import Classes, class_names
from mae_jax.data.decoding import MAX_PIXELS
from mae_jax.data.files import existing, read_bytes
from mae_jax.data.images import BadImage, Window, decode_mask
from mae_jax.data.object_files import (
    MAX_CLASSES,
    Annotated,
    Annotation,
    ObjectImages,
    numbered,
)
from mae_jax.data.objects import MASK_SIZE, MAX_OBJECTS, encode
from mae_jax.data.partners import find_partners, listed_names
from mae_jax.data.reading import Reading
from mae_jax.types import UserError


class _Object(NamedTuple):
    name: str
    box: tuple[float, float, float, float]
    """(ymin, xmin, ymax, xmax)."""
    difficult: bool


def make(
    images: str,
    annotations: str,
    *,
    masks: str = "",
    classes: Classes = None,
    listed: str = "",
    difficult: bool = False,
    max_objects: int = MAX_OBJECTS,
    mask_size: int = MASK_SIZE,
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
) -> ObjectImages:
    """Images with boxes, e.g. voc('JPEGImages', 'Annotations',
    listed='ImageSets/Main/trainval.txt').

    Corners of boxes are numbers of pixels from 1 on, and the last pixel is part of the box. All
    annotations are in memory.

    Args:
        images, annotations: folders, with files of the same names but for the extensions. What has
            no partner is left out, counted and named at the start.
        masks: a folder with an image of numbers for each image with objects, such as
            'SegmentationObject': number n is the n-th object of the XML file. Those without one are
            left out.
        classes: how many, their names, or a text file with a name on each line; None: the names
            that occur, sorted.
        listed: a text file with the names of the images, one a line, without extension; empty: all.
        difficult: whether objects that are marked as difficult are like all others. If not, they
            are like COCO's crowds: evaluations ignore them, as VOC's own does, and training does
            not see them.
        max_objects: rows of 'box', 'box_label' and 'box_mask'; of more objects, the largest.
        mask_size: side of the masks in 'box_mask', each cut to its box.
        channels, window, background, max_pixels: of the images, as for `folder`.

    Raises:
        UserError: a folder, a file or an object is not of that format, or has another class.
    """
    decoder = Reading(
        "voc", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    names = class_names("voc", classes, most=MAX_CLASSES) if classes is not None else ()
    folder = existing("voc", masks) if masks else None
    pairs = find_partners(
        images,
        annotations,
        ("", ""),
        listed_names("voc", listed),
        where="voc",
        endings=(".xml",),
    )
    found = [_read(pairs.label(index)) for index in range(len(pairs))]
    labels = numbered("voc", [o.name for _, objects in found for o in objects], names)
    items = []
    for index, (size, objects) in enumerate(found):
        path = pairs.label(index)
        parts = _parts(folder, pairs.name(index), len(objects), max_pixels) if folder else None
        if other := [o.name for o in objects if o.name not in labels]:
            raise UserError(f"voc: {path} has the class {other[0]!r}, not in {list(labels)[:8]}")
        rows = [
            Annotation(
                o.box,
                labels[o.name],
                parts[place] if parts else (),
                crowd=o.difficult and not difficult,
            )
            for place, o in enumerate(objects)
        ]
        items.append(Annotated(pairs.name(index), rows, size))
    return ObjectImages(
        "voc",
        pairs.images.root,
        items,
        tuple(labels),
        decoder,
        max_objects=max_objects,
        mask_size=mask_size,
        crowds="difficult object",
        notes=pairs.notes,
    )


def _read(path: Path) -> tuple[tuple[int, int] | None, list[_Object]]:
    """The size (height, width) of an image, if it is there, and its objects."""
    try:
        root = ET.fromstring(read_bytes(path))
        size = [int(float(root.findtext(f"size/{name}") or 0)) for name in ("height", "width")]
        return (tuple(size) if all(size) else None), [_object(o) for o in root.findall("object")]
    except (ET.ParseError, BadImage, OSError, ValueError) as error:
        raise UserError(f"voc: cannot read {path}: {error}") from error


def _object(element: ET.Element) -> _Object:
    name = (element.findtext("name") or "").strip()
    text = [element.findtext(f"bndbox/{key}") for key in ("ymin", "xmin", "ymax", "xmax")]
    if not name or None in text:
        raise ValueError(f"the object {name!r} lacks a name, or bndbox with xmin, ymin, xmax, ymax")
    ymin, xmin, ymax, xmax = map(float, text)
    if not np.isfinite([ymin, xmin, ymax, xmax]).all():
        raise ValueError(f"the box of {name!r} is not finite")
    # From numbers of pixels to distances: the first pixel starts at 0.
    mark = (element.findtext("difficult") or "").strip().lower()  # some files leave it empty
    return _Object(name, (ymin - 1, xmin - 1, ymax, xmax), mark in ("1", "true"))


def _parts(folder: Path, name: str, count: int, max_pixels: int) -> list[tuple]:
    """Run lengths of each object in an image of their numbers; none if it has no pixel."""
    path = (folder / name).with_suffix(".png")
    if not path.exists():
        return [()] * count
    try:
        numbers = decode_mask(read_bytes(path), max_pixels)
    except (BadImage, OSError) as error:
        raise UserError(f"voc: cannot read {path}: {error}") from error
    known = [number for number in range(1, count + 1) if (numbers == number).any()]
    drawn = encode(np.array([numbers == number for number in known]).reshape(-1, *numbers.shape))
    rles = dict(zip(known, drawn))
    return [(rles[number],) if number in rles else () for number in range(1, count + 1)]
