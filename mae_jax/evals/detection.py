"""Object detection and instance segmentation: COCO's average precision of boxes and masks, in the
pixels of the original images.
"""

from collections.abc import Mapping

import jax
import numpy as np

from mae_jax.data.objects import OBJECTS, Objects, coco_masks
from mae_jax.evals.average_precision import average_precision
from mae_jax.evals.features import EvalData, Evaluator, Predict, check_limit
from mae_jax.evals.full_size_objects import Detected, check_size, detect
from mae_jax.ops.boxes import OUTPUTS
from mae_jax.types import Batch, Metric, UserError

_FURTHER = ("ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def make(*, size: int = 1024, batch_size: int = 1, limit: int | None = None) -> Evaluator:
    """Evaluates 'box_ap' and, where the test set has masks, 'mask_ap': COCO's average precision;
    beside each '..._ap50', '..._ap75', '..._ap_small', '..._ap_medium', '..._ap_large', and
    '..._ap/<class>'. See `average_precision`; images without objects count, too.

    Args:
        size: side of the network's square input: images are resized to it by their longer sides,
            and padded.
        batch_size: images on a device.
        limit: use at most so many images, spread over the test set.

    Raises:
        UserError: a value that cannot be, or a package is missing; when called: a test set without
            objects, or a score that is not finite.
    """
    check_size(size, batch_size)
    check_limit("detection", limit)
    coco_masks()

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        names = data.source("test").names.get("box_label", ())
        if not names:
            raise UserError("detection: config.data.test does not name the classes of its boxes")
        truth, found = [], []
        for detected in detect(predict, data, size=size, batch_size=batch_size, limit=limit):
            truth.append(_objects(data, detected))
            found.append(detected.detections)
        kinds = ("box",) if any(objects.mask is None for objects in truth) else ("box", "mask")
        return {
            f"{kind}_{name}": value
            for kind in kinds
            for name, value in average_precision(truth, found, names, kind).items()
        }

    metrics = {f"{kind}_ap": Metric() for kind in ("box", "mask")}
    for kind in ("box", "mask"):
        metrics |= {f"{kind}_{name}": Metric(table="further") for name in _FURTHER}
        metrics[f"{kind}_ap/*"] = Metric(table="")
    return Evaluator(
        name="detection",
        run=run,
        outputs=OUTPUTS,
        needs={"test": ("box", "box_label")},
        reduce=kept,
        metrics=metrics,
        advice="it is for tasks that detect, such as tasks.detect",
    )


def kept(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """The outputs alone: the images need not leave the devices."""
    return {name: outputs[name] for name in OUTPUTS}


def _objects(data: EvalData, detected: Detected) -> Objects:
    """The annotated objects of an image, also of one that another process has read."""
    source = data.source("test")
    row = detected.row
    if row is None:
        row = {name: x[0] for name, x in source.read(np.array([detected.index])).items()}
    if OBJECTS not in row:
        raise UserError(
            "detection: config.data.test has no annotated objects: use coco, voc, yolo, labelme or "
            "fashion_scenes(objects=...)"
        )
    objects = row[OBJECTS]
    if objects.size != detected.size:
        raise UserError(
            f"detection: {source.name(detected.index)} is {detected.size}, and its objects are "
            f"annotated in {objects.size} pixels (height, width)"
        )
    return objects
