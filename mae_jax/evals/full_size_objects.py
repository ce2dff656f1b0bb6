"""Objects detected in images at their full size: the evaluator and `mae-jax predict` share it.

Images are resized so that their longer side is that of the network's square input, and padded at
the bottom and on the right, as in detectron2's evaluation of ViTDet (Li et al. 2022).
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np

from mae_jax.data.box_masks import linear
from mae_jax.data.images import cut
from mae_jax.data.objects import encode
from mae_jax.data.order import evaluated
from mae_jax.evals.average_precision import Detections
from mae_jax.evals.buckets import padded
from mae_jax.evals.features import EvalData, Predict
from mae_jax.evals.full_size import outside
from mae_jax.ops.boxes import OUTPUTS
from mae_jax.types import UserError

SIZE = "image_size"
"""Field of a batch: [B, 2] float32 (height, width) in pixels of the image in the padded input."""


class Detected(NamedTuple):
    """What is detected in an image."""

    index: int
    """Of the image in its split."""
    size: tuple[int, int]
    """(height, width) of the image in pixels."""
    row: dict | None
    """The example, if this process has read it."""
    detections: Detections


def check_size(size: int, batch_size: int) -> None:
    """Raises UserError if one is not a positive number."""
    if type(size) is not int or type(batch_size) is not int or min(size, batch_size) < 1:
        raise UserError(
            f"detection: size={size!r} and batch_size={batch_size!r} should be positive integers"
        )


def detect(
    predict: Predict,
    data: EvalData,
    *,
    size: int,
    batch_size: int,
    split: str = "test",
    limit: int | None = None,
) -> Iterator[Detected]:
    """The detections in all readable images of a split, each once, the same in all processes.

    Args:
        predict: a predictor with the outputs `OUTPUTS`.
        data: the images.
        size: side of the network's input.
        batch_size: images on a device.
        limit: use at most so many images, spread over the split.
    """
    sizes, count = data.sizes(split), batch_size * jax.device_count()
    indices = evaluated(len(sizes), limit)
    readable = indices[sizes[indices].all(axis=1)]
    groups = [readable[i : i + count] for i in range(0, len(readable), count)]
    channels = data.example("eval", split)["image"].shape[-1]
    for indices, rows in zip(groups, data.originals(split, groups, count), strict=True):
        outputs = predict(make_batch(rows, size, channels))
        outputs = {name: np.asarray(outputs[name]) for name in OUTPUTS}
        first = jax.process_index() * len(rows)
        for place, index in enumerate(indices):
            mine = 0 <= place - first < len(rows)
            original = tuple(map(int, sizes[index]))
            yield Detected(
                int(index),
                original,
                rows[place - first] if mine else None,
                to_original({name: x[place] for name, x in outputs.items()}, original, size),
            )


def fitted(original: tuple[int, int], size: int) -> tuple[int, int]:
    """(height, width) of an image of the size `original` whose longer side is resized to `size`."""
    height, width = (max(1, int(side * size / max(original) + 0.5)) for side in original)
    return height, width


def make_batch(rows: list, size: int, channels: int) -> dict[str, np.ndarray]:
    """A batch of examples, None on padding: 'image' [B, size, size, C] uint8, `SIZE`, 'valid'."""
    fill = outside(channels)
    batch = {
        "image": np.full((len(rows), size, size, channels), fill, np.uint8),
        SIZE: np.full((len(rows), 2), size, np.float32),
        "valid": np.array([row is not None for row in rows]),
    }
    for place, row in enumerate(rows):
        if row is not None:
            height, width = row["image"].shape[:2]
            inside = fitted((height, width), size)
            image = cut(row["image"], (0, 0, height, width), inside, "bilinear")
            batch["image"][place] = padded(image, (size, size), fill)
            batch[SIZE][place] = inside
    return batch


def to_original(
    outputs: Mapping[str, np.ndarray], original: tuple[int, int], size: int
) -> Detections:
    """The detections of one image in its pixels.

    Args:
        outputs: `OUTPUTS` of the image.
        original: (height, width) of the image.
        size: side of the network's input.

    Raises:
        UserError: a box is not finite.
    """
    valid = outputs["det_valid"].astype(bool)
    inside = np.array(fitted(original, size))
    scale = np.tile(size * np.array(original) / inside, 2)
    boxes = outputs["det_box"][valid].astype(np.float64) * scale
    if not np.isfinite(boxes).all():
        raise UserError("detection: boxes are not finite: has the training diverged?")
    boxes = np.clip(boxes, 0, np.tile(original, 2))
    masks = zip(outputs["det_mask"][valid], boxes, strict=True)
    drawn = [encode(paste(mask, box, original)[None])[0] for mask, box in masks]
    return Detections(
        boxes, outputs["det_score"][valid], outputs["det_label"][valid].astype(int), drawn
    )


def paste(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A bitmap [H, W] bool of an image from the probabilities within a box: bilinear with
    half-pixel centers, 0 outside of the box, at least 0.5, as in detectron2.

    Args:
        mask: [m, m] probabilities.
        box: (ymin, xmin, ymax, xmax) in pixels of the image.
        size: (height, width) of the image.
    """
    bitmap = np.zeros(size, bool, order="F")  # run lengths are down the columns
    part, values = [], np.pad(mask.astype(np.float32), 1)
    for low, high, side, cells in zip(box[:2], box[2:], size, mask.shape, strict=True):
        first, end = max(0, int(np.floor(low))), min(side, int(np.ceil(high)))
        inside = (np.arange(first, end) + 0.5 - low) / max(high - low, 1e-9)
        values = linear(values, inside * cells + 0.5).T  # [m + 2, h], then [h, w]
        part.append(slice(first, end))
    bitmap[tuple(part)] = values >= 0.5
    return bitmap
