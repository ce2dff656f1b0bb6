"""The annotated objects of an image as their files have them, for evaluations and for the fields of
batches that are drawn from them. Masks are bitmaps, or run lengths in the format of COCO.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mae_jax.data.images import cut
from mae_jax.types import UserError

OBJECTS = "(objects)"
"""Key of an example for its `Objects`, which are not part of batches."""
MASK_SIZE = 112
"""Default side of the masks in 'box_mask', each cut to its box."""
MAX_OBJECTS = 100
"""Default number of rows of 'box', 'box_label' and 'box_mask'."""

Rle = dict[str, Any]
"""COCO's run lengths down the columns: {'size': [height, width], 'counts': compressed bytes}."""


def check_mask_size(where: str, side: int) -> None:
    """Raises UserError if masks cannot have this side."""
    if type(side) is not int or not 1 <= side <= 512:
        raise UserError(f"{where}: mask_size={side!r} should be an integer from 1 to 512")


def coco_masks():
    """COCO's functions on masks.

    Raises:
        UserError: they are not installed.
    """
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise UserError(
            f"COCO's masks and metrics need faster-coco-eval ({error}): pip install "
            "faster-coco-eval"
        ) from error
    return mask


def encode(masks: np.ndarray) -> list[Rle]:
    """Run lengths of bitmaps [n, H, W] bool."""
    columns = np.asfortranarray(np.moveaxis(masks, 0, -1), np.uint8)  # [H, W, n]
    return coco_masks().encode(columns) if len(masks) else []


def decode(rle: Rle) -> np.ndarray:
    """The bitmap [H, W] bool of run lengths; ten times faster than COCO's own function."""
    height, width = rle["size"]
    ends = np.cumsum(run_lengths(rle["counts"])).tolist()
    bitmap = np.zeros(height * width, bool)
    for first, end in zip(ends[0::2], ends[1::2]):
        bitmap[first:end] = True
    return bitmap.reshape(width, height).T


def run_lengths(counts: bytes) -> np.ndarray:
    """The lengths [n] of compressed runs, of zeros and of ones by turns.

    A number is a sequence of bytes from 48 on, with five bits each, the lowest first; the sixth bit
    is set where more follow, and the fifth of the last one is the sign. From the fourth number on,
    it is the difference to the length two before. Format: cocoapi, `common/maskApi.c`.
    """
    values = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(values < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(values)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((values & 31) << (5 * places), starts)
    numbers -= ((values[ends] & 16) > 0) * (1 << (5 * (places[ends] + 1)))
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objects:
    """All annotated objects of an image, crowds included."""

    size: tuple[int, int]
    """(height, width) of the image in pixels."""
    boxes: np.ndarray
    """[N, 4] float64 (ymin, xmin, ymax, xmax) in pixels; they may reach out of the image."""
    labels: np.ndarray
    """[N] int, classes."""
    areas: np.ndarray
    """[N] float64 in pixels, as annotated."""
    crowd: np.ndarray
    """[N] bool: regions of many objects, which evaluations ignore and training does not see."""
    mask: Callable[[int], np.ndarray | Rle] | None = None
    """Draws the mask of an object, a bitmap [H, W] bool or run lengths; None: there are boxes only.
    """

    def bitmap(self, index: int) -> np.ndarray:
        """[H, W] bool, the mask of an object."""
        mask = self.mask(index)
        return decode(mask) if isinstance(mask, dict) else mask

    def rle(self, index: int) -> Rle:
        """Run lengths of the mask of an object."""
        mask = self.mask(index)
        return mask if isinstance(mask, dict) else encode(mask[None])[0]

    def largest(self, count: int) -> np.ndarray:
        """At most `count` objects within the image that are no crowds, by descending area. Of equal
        areas, up to the rounding of a file's fractions, those that come first.
        """
        low, high = np.split(np.clip(self.boxes, 0, np.tile(self.size, 2)), 2, axis=1)
        single = np.flatnonzero(~self.crowd & (low < high).all(1))
        return single[np.argsort(-self.areas[single].round(6), kind="stable")[:count]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxMasks:
    """Masks of objects cut to their boxes, drawn only where batches hold them."""

    objects: Objects
    rows: Sequence[int]
    """The objects, in the order of 'box'."""
    count: int
    """Rows to return; zeros after the last object."""
    side: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(count, side, side)."""
        return self.count, self.side, self.side

    def drawn(self) -> np.ndarray:
        """[count, side, side] uint8: coverage from 0 to 255."""
        masks = np.zeros(self.shape, np.uint8)
        for row, index in enumerate(self.rows):
            masks[row] = cut_to_box(
                self.objects.bitmap(index), self.objects.boxes[index], self.side
            )
        return masks


def cut_to_box(mask: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """[side, side] uint8, 0 to 255: a mask [H, W] bool within a box (ymin, xmin, ymax, xmax) in
    pixels, resized with antialiasing.
    """
    low, high = np.clip(box.reshape(2, 2), 0, mask.shape)
    if not (high > low).all():
        return np.zeros((side, side), np.uint8)
    pixels = mask[..., None].astype(np.uint8) * np.uint8(255)
    return cut(pixels, (*low, *(high - low)), (side, side))[..., 0]


def boxed(
    boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray | None, size: tuple[int, int]
) -> Objects:
    """Objects without masks; their areas are those of the boxes.

    Args:
        boxes: [N, 4] fractions of the image.
        labels: [N] classes.
        crowd: [N] bool; None: there are no crowds.
        size: (height, width) of the image.
    """
    boxes = boxes.astype(np.float64) * np.tile(size, 2)
    return Objects(
        size=size,
        boxes=boxes,
        labels=np.asarray(labels, np.int64),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
        crowd=np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd, bool),
    )


def training_fields(objects: Objects, rows: np.ndarray, count: int, side: int) -> dict[str, Any]:
    """'box' [count, 4] float32, fractions of the image, 'box_label' [count] int32 and, if there are
    masks, 'box_mask' of some of the objects, padded; and `OBJECTS`, all of them.

    Args:
        objects: of the image.
        rows: the objects of batches, at most `count`.
        count: rows of the fields.
        side: of the masks.
    """
    boxes, labels = np.zeros((count, 4), np.float32), np.full(count, -1, np.int32)
    boxes[: len(rows)] = np.clip(objects.boxes[rows] / np.tile(objects.size, 2), 0, 1)
    labels[: len(rows)] = objects.labels[rows]
    fields = {"box": boxes, "box_label": labels, OBJECTS: objects}
    if objects.mask is not None:
        fields["box_mask"] = BoxMasks(objects=objects, rows=rows, count=count, side=side)
    return fields
