"""COCO's average precision (Lin et al. 2014, https://cocodataset.org/#detection-eval) of boxes and
masks, computed by faster-coco-eval.

Precision is averaged over 101 recalls and the IoU thresholds 0.5, 0.55, ..., 0.95, for at most 100
detections of an image. Areas of objects are as annotated. Crowds are neither found nor missed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mae_jax.data.objects import Objects, Rle, coco_masks, decode
from mae_jax.types import UserError

KINDS = {"box": "bbox", "mask": "segm"}
"""What is compared -> its name in COCO's evaluation."""
_SIZES = ("small", "medium", "large")  # of areas up to 32² and 96² pixels, and above


class Detections(NamedTuple):
    """Detected objects of an image; the 100 with the highest scores count."""

    boxes: np.ndarray
    """[k, 4] (ymin, xmin, ymax, xmax) in pixels of the image."""
    scores: np.ndarray
    """[k]."""
    labels: np.ndarray
    """[k] int, classes."""
    masks: Sequence[Rle] | None = None
    """k masks; None: there are boxes only."""

    def bitmap(self, index: int) -> np.ndarray:
        """[H, W] bool, the mask of a detection."""
        return decode(self.masks[index])


def average_precision(
    truth: Sequence[Objects], found: Sequence[Detections], names: Sequence[str], kind: str
) -> dict[str, float]:
    """'ap', 'ap50', 'ap75'; 'ap_small', 'ap_medium' and 'ap_large' by area; 'ap/<class>'. Metrics
    without an object to find are left out; without detections they are 0.

    Args:
        truth: objects of each image.
        found: detections in each image.
        names: of the classes.
        kind: 'box' or 'mask'.

    Raises:
        UserError: a score is not finite, a class is not one of the names, or no object is
            annotated.
    """
    _check(truth, found, names)
    precision = _precision(truth, found, len(names), kind)  # [T, R, K, A]
    means = {"ap": precision[..., 0], "ap50": precision[0, ..., 0], "ap75": precision[5, ..., 0]}
    means |= {f"ap_{size}": precision[..., area] for area, size in enumerate(_SIZES, start=1)}
    means |= {f"ap/{name}": precision[:, :, place, 0] for place, name in enumerate(names)}
    # -1 stands where a class has no object of the area.
    return {name: float(p[p > -1].mean()) for name, p in means.items() if (p > -1).any()}


def _check(truth: Sequence[Objects], found: Sequence[Detections], names: Sequence[str]) -> None:
    if not any((~objects.crowd).any() for objects in truth):
        raise UserError(f"detection: none of the {len(truth)} images has an annotated object")
    for rows in (*truth, *found):
        wrong = rows.labels[(rows.labels < 0) | (rows.labels >= len(names))]
        if wrong.size:
            raise UserError(
                f"detection: an object has the class {wrong[0]}: the {len(names)} classes are 0 to "
                f"{len(names) - 1}"
            )
    scores = np.concatenate([rows.scores for rows in found])
    if not np.isfinite(scores).all():
        raise UserError(
            f"detection: {np.sum(~np.isfinite(scores))} of {len(scores)} scores are not finite: "
            "has the training diverged?"
        )


def _precision(truth, found, classes: int, kind: str) -> np.ndarray:
    """[10 thresholds, 101 recalls, K classes, 4 areas], -1 without an object."""
    coco_masks()  # a UserError where the package is missing
    from faster_coco_eval import COCO, COCOeval_faster

    known = COCO(
        {
            "images": [
                {"id": i, "height": objects.size[0], "width": objects.size[1]}
                for i, objects in enumerate(truth, start=1)
            ],
            "categories": [{"id": c + 1, "name": str(c)} for c in range(classes)],
            "annotations": _annotations(truth, kind),
        }
    )
    # Images without objects count, too: what is found in them is wrong.
    evaluation = COCOeval_faster(known, known.loadRes(_results(found, kind)), KINDS[kind])
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[..., -1]


def _annotations(truth: Sequence[Objects], kind: str) -> list[dict[str, Any]]:
    """COCO's annotations. Their numbers start at 1, as 0 would mean that nothing is matched."""
    rows = []
    for image, objects in enumerate(truth, start=1):
        for index, box in enumerate(objects.boxes):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image,
                    "category_id": int(objects.labels[index]) + 1,
                    "iscrowd": int(objects.crowd[index]),
                    "area": float(objects.areas[index]),
                    "bbox": corner_and_extent(box),
                }
            )
            if kind == "mask":
                rows[-1]["segmentation"] = objects.rle(index)
    return rows


def _results(found: Sequence[Detections], kind: str) -> list[dict[str, Any]]:
    """COCO's results. Those of masks have no box, which would be taken for their area."""
    rows = []
    for image, (boxes, scores, labels, masks) in enumerate(found, start=1):
        shapes = masks if kind == "mask" else map(corner_and_extent, boxes)
        rows += [
            {
                "image_id": image,
                "category_id": int(label) + 1,
                "score": float(score),
                "segmentation" if kind == "mask" else "bbox": shape,
            }
            for shape, score, label in zip(shapes, scores, labels, strict=True)
        ]
    return rows


def corner_and_extent(box: np.ndarray) -> list[float]:
    """COCO's [xmin, ymin, width, height] of a box (ymin, xmin, ymax, xmax)."""
    ymin, xmin, ymax, xmax = (float(value) for value in box)
    return [xmin, ymin, xmax - xmin, ymax - ymin]
