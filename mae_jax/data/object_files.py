"""Images whose objects are annotated in files, for the sources of each format: which objects are
left out, the fields of batches, and the objects of evaluations.

All annotations are read when the source is opened and stay in memory.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mae_jax.data.files import number, read_bytes
from mae_jax.data.images import BadImage
from mae_jax.data.objects import Objects, Rle, check_mask_size, coco_masks, training_fields
from mae_jax.data.reading import CHANGES, Reading, spread
from mae_jax.data.sources import Source
from mae_jax.types import UserError

Part = np.ndarray | Rle
"""A polygon [2 p] (x, y, x, y, ...), or run lengths."""
MAX_CLASSES = 65535


class Annotation(NamedTuple):
    """An annotated object."""

    box: tuple[float, float, float, float]
    """(ymin, xmin, ymax, xmax)."""
    label: int
    parts: Sequence[Part] = ()
    """Of its mask, which is their union; empty: there is only a box."""
    area: float | None = None
    """In pixels; None: that of its parts, or of the box."""
    crowd: bool = False


class Annotated(NamedTuple):
    """An image with its objects."""

    path: str
    """Relative to the folder of the images."""
    objects: Sequence[Annotation]
    size: tuple[int, int] | None = None
    """(height, width) in pixels, as its annotation states; None: it does not."""


class ObjectImages(Source):
    """Images with annotated objects.

    Args:
        where: name of the source, for messages.
        root: folder of the images.
        images: and their objects.
        class_names: of the objects.
        decoder: makes images of the bytes of files.
        max_objects: rows of 'box', 'box_label' and 'box_mask'.
        mask_size: side of the masks.
        fractions: whether coordinates are fractions of the image, not pixels.
        boxes_are_masks: whether objects without a mask are filled boxes if others have a mask; else
            they are left out.
        crowds: what an object that is a crowd is called in notes.
        notes: lines to report.

    Raises:
        UserError: a number that cannot be.
    """

    reading = CHANGES

    def __init__(
        self,
        where: str,
        root: Path,
        images: Sequence[Annotated],
        class_names: Sequence[str],
        decoder: Reading,
        *,
        max_objects: int,
        mask_size: int,
        fractions: bool = False,
        boxes_are_masks: bool = False,
        crowds: str = "crowd",
        notes: Sequence[str] = (),
    ):
        check_mask_size(where, mask_size)
        if type(max_objects) is not int or not 1 <= max_objects <= 10_000:
            raise UserError(
                f"{where}: max_objects={max_objects!r} should be an integer from 1 to 10000"
            )
        self.root, self.decoder, self.fractions = root, decoder, fractions
        self.crowds = crowds
        self.max_objects, self.mask_size = max_objects, mask_size
        self.names = {"box_label": tuple(class_names)}
        self.num_examples = len(images)
        counts: Counter[str] = Counter()
        self.masks = any(o.parts for image in images for o in image.objects)
        fill = self.masks and boxes_are_masks
        keep = functools.partial(_kept, counts=counts, masks=self.masks, fill=fill)
        self.images = [image._replace(objects=keep(image.objects)) for image in images]
        self.notes = (*notes, *decoder.look(self._some()), *self._lines(counts))
        listing = hashlib.sha256(repr([image.path for image in images]).encode())
        self.digest = listing.hexdigest()[:16]

    def name(self, index: int) -> str:
        """The path of the image relative to the folder."""
        return self.images[index].path

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image', still encoded, 'box' [n, 4], 'box_label' [n], 'box_mask' if there are masks, and
        `objects.OBJECTS`.
        """
        rows = [self._row(self.images[index]) for index in indices]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _row(self, item: Annotated) -> dict:
        image = self.decoder(read_bytes(self.root / item.path))
        if item.size not in (None, image.shape):
            stated, own = (f"{width} x {height}" for height, width in (item.size, image.shape))
            raise BadImage(
                f"its objects are annotated in {stated} pixels, and it is {own}, upright"
            )
        for part in (part for o in item.objects for part in o.parts if isinstance(part, dict)):
            if tuple(part["size"]) != image.shape:
                raise BadImage(
                    f"a mask is {part['size']}, it is {[*image.shape]}: height and width"
                )
        objects = self._objects(item, image.shape)
        rows = objects.largest(self.max_objects)
        return {"image": image} | training_fields(objects, rows, self.max_objects, self.mask_size)

    def _objects(self, item: Annotated, size: tuple[int, int]) -> Objects:
        scale = np.array(size if self.fractions else (1, 1), np.float64)  # (y, x)
        boxes = np.array([o.box for o in item.objects], np.float64).reshape(-1, 4)
        boxes = boxes * np.tile(scale, 2)
        draw = functools.partial(_drawn, item.objects, size=size, scale=scale)
        return Objects(
            size=size,
            boxes=boxes,
            labels=np.array([o.label for o in item.objects], np.int64),
            areas=np.array([_area(o, scale.prod()) for o in item.objects], np.float64),
            crowd=np.array([o.crowd for o in item.objects], bool),
            mask=draw if self.masks else None,
        )

    def _some(self) -> Iterator[bytes]:
        """The bytes of a few images, spread over all of them."""
        for index in spread(self.num_examples):
            try:
                yield read_bytes(self.root / self.images[index].path)
            except (BadImage, OSError):  # reading it in training reports the error
                continue

    def _lines(self, counts: Counter[str]) -> Iterator[str]:
        for reason, count in sorted(counts.items()):
            yield f"left out {number(count, 'object')} {reason}"
        single = [sum(not o.crowd for o in image.objects) for image in self.images]
        if empty := single.count(0):
            yield f"{number(empty, 'image')} without objects: they are used, too"
        if crowds := sum(len(image.objects) for image in self.images) - sum(single):
            yield f"{number(crowds, self.crowds)}: ignored by evaluations, and not part of training"
        cut = [count - self.max_objects for count in single if count > self.max_objects]
        if cut:
            yield (
                f"{number(len(cut), 'image')} with more than {self.max_objects} objects, up to "
                f"{max(single)}: batches leave out {number(sum(cut), 'object')}, the smallest; "
                "raise max_objects to have them"
            )


def _kept(objects: Sequence[Annotation], *, counts: Counter[str], masks: bool, fill: bool):
    """The objects that can be used; others are counted by reason."""
    kept = []
    for o in objects:
        ymin, xmin, ymax, xmax = o.box
        if not (ymin < ymax and xmin < xmax):
            counts["whose box has no extent"] += 1
        elif masks and not o.parts and not fill:
            counts["without a mask, which others have"] += 1
        elif masks and not o.parts:
            kept.append(o._replace(parts=(corners(o.box),)))
        else:
            kept.append(o)
    return tuple(kept)


def _area(o: Annotation, scale: float) -> float:
    """In pixels.

    Args:
        scale: pixels in a unit of the coordinates.
    """
    if o.area is not None:
        return o.area
    ymin, xmin, ymax, xmax = o.box
    area = 0.0 if o.parts else (ymax - ymin) * (xmax - xmin) * scale
    for part in o.parts:
        if isinstance(part, dict):
            area += float(coco_masks().area(part))
        else:
            x, y = part[0::2], part[1::2]
            area += abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 * scale
    return area


def _drawn(objects: Sequence[Annotation], index: int, *, size, scale: np.ndarray) -> Rle:
    """Run lengths of the mask of an object, drawn as COCO does."""
    masks, parts = coco_masks(), objects[index].parts
    polygons = [(p.reshape(-1, 2) * scale[::-1]).ravel() for p in parts if not isinstance(p, dict)]
    drawn = masks.frPyObjects([p.tolist() for p in polygons], *size) if polygons else []
    drawn += [part for part in parts if isinstance(part, dict)]
    return masks.merge(drawn) if len(drawn) > 1 else drawn[0]


def polygon(values: Sequence[float]) -> np.ndarray | None:
    """A polygon [2 p] float64; None of fewer than three points.

    Raises:
        ValueError: not pairs of finite numbers.
    """
    points = np.array(values, np.float64).ravel()
    if len(points) % 2 or not np.isfinite(points).all():
        raise ValueError("a polygon is not made of pairs of finite numbers")
    return points if len(points) >= 6 else None


def extent(points: np.ndarray) -> tuple[float, float, float, float]:
    """The box (ymin, xmin, ymax, xmax) of points [2 p] (x, y, x, y, ...)."""
    x, y = points[0::2], points[1::2]
    return float(y.min()), float(x.min()), float(y.max()), float(x.max())


def corners(box: Sequence[float]) -> np.ndarray:
    """The polygon [8] of a box."""
    ymin, xmin, ymax, xmax = box
    return np.array([xmin, ymin, xmax, ymin, xmax, ymax, xmin, ymax])


def numbered(where: str, found: Sequence[str], given: Sequence[str]) -> dict[str, int]:
    """Class -> number: the names that are given, or those that were found, sorted.

    Raises:
        UserError: there is none.
    """
    names = given or sorted({*found})
    if not names:
        raise UserError(f"{where}: no object is annotated: give classes=..., their names")
    return {name: place for place, name in enumerate(names)}
