"""Images with objects in the format of YOLO: a text file for each, with a line for each box or
polygon, in fractions of the image.
"""

from pathlib import Path

import numpy as np

from mae_jax.data import alpha
from mae_jax.data.class_ids import Classes, class_names
from mae_jax.data.decoding import MAX_PIXELS, extensions
from mae_jax.data.fields import boxes_from_centers
from mae_jax.data.files import existing, find, number, read_bytes
from mae_jax.data.images import BadImage, Window
from mae_jax.data.object_files import MAX_CLASSES, Annotated, Annotation, ObjectImages, extent
from mae_jax.data.objects import MASK_SIZE, MAX_OBJECTS
from mae_jax.data.reading import Reading
from mae_jax.types import UserError

_SLACK = 0.01  # of the image, by which corners may be outside


def make(
    images: str,
    labels: str,
    classes: Classes,
    *,
    max_objects: int = MAX_OBJECTS,
    mask_size: int = MASK_SIZE,
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
) -> ObjectImages:
    """Images with boxes or polygons, e.g. yolo('images/train', 'labels/train', ('cat', 'dog')).

    The lines of NAME.txt are 'class x_center y_center width height' or 'class x1 y1 x2 y2 x3 y3
    ...'. An image without a file, or with an empty one, has no objects. Where some objects have
    polygons, the masks of the others are their boxes. All annotations are in memory.

    Args:
        images, labels: folders.
        classes: how many, their names, or a text file with a name on each line.
        max_objects: rows of 'box', 'box_label' and 'box_mask'; of more objects, the largest.
        mask_size: side of the masks in 'box_mask', each cut to its box.
        channels, window, background, max_pixels: of the images, as for `folder`.

    Raises:
        UserError: a folder or a line is not like that.
    """
    decoder = Reading(
        "yolo", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    names, folder = class_names("yolo", classes, most=MAX_CLASSES), existing("yolo", labels)
    endings = extensions()
    wanted = lambda file: file.name.lower().endswith(endings)
    files = find("yolo", images, wanted, f"{', '.join(endings[:8])} and others")
    of_labels = find("yolo", labels, lambda file: file.suffix == ".txt", "*.txt")
    spare = {of_labels[place] for place in range(len(of_labels))}
    items = []
    for place in range(len(files)):
        name = Path(files[place]).with_suffix(".txt").as_posix()
        rows = _read(folder / name, len(names)) if name in spare else []
        items.append(Annotated(files[place], rows))
        spare.discard(name)
    notes = [note for note in files.notes if note not in files.no_classes]
    if spare:
        few = ", ".join(sorted(spare)[:3])
        notes.append(f"left out {number(len(spare), 'label file')} without an image: {few}")
    return ObjectImages(
        "yolo",
        files.root,
        items,
        names,
        decoder,
        max_objects=max_objects,
        mask_size=mask_size,
        fractions=True,
        boxes_are_masks=True,
        notes=notes,
    )


def _read(path: Path, classes: int) -> list[Annotation]:
    """The objects in a text file."""
    rows = []
    try:
        lines = read_bytes(path).decode().splitlines()
    except (BadImage, OSError, ValueError) as error:
        raise UserError(f"yolo: cannot read {path}: {error}") from error
    for place, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows.append(_object(np.array(line.split(), np.float64), classes))
            except ValueError as error:
                raise UserError(f"yolo: line {place} of {path}: {error}: {line[:80]!r}") from error
    return rows


def _object(values: np.ndarray, classes: int) -> Annotation:
    """The object of a line."""
    label, where = values[0], values[1:]
    if label not in range(classes):
        raise ValueError(f"the class is none of 0 to {classes - 1}")
    if len(where) != 4 and (len(where) < 6 or len(where) % 2):
        raise ValueError("no box of 4 numbers and no polygon of at least 3 points")
    if not (np.abs(where - 0.5) <= 0.5 + _SLACK).all():  # also false of NaN
        raise ValueError("not in fractions of the image, from 0 to 1")
    if len(where) == 4:
        return Annotation(tuple(boxes_from_centers(where[None])[0].tolist()), int(label))
    return Annotation(extent(where), int(label), (where,))
