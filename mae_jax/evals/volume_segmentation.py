"""Segmentation of volumes at their own size and spacing: Dice and intersection over union, the mean
over volumes, as medical challenges and nnU-Net report them.
"""

import dataclasses
import logging
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from mae_jax.data.images import BadImage
from mae_jax.evals.features import EvalData, Evaluator, Predict, check_limit
from mae_jax.evals.sliding import Sliding, label_blocks, logits_of, sliding, unreadable, volumes
from mae_jax.types import IGNORE, Metric, UserError

logger = logging.getLogger(__name__)

PER_CLASS = Metric(table="")


def make(
    *,
    crop: int | Sequence[int],
    overlap: float = 0.5,
    weighting: str = "gaussian",
    fill: int = 0,
    background: bool = False,
    batch_size: int = 4,
    limit: int | None = None,
) -> Evaluator:
    """Evaluates 'dice' and 'iou', means over classes, and 'dice/<class>' and 'iou/<class>', means
    over the volumes of the test set.

    In one volume, with P voxels predicted, L labeled and I both, Dice is 2 I / (P + L) and IoU is
    I / (P + L - I). A volume in which a class is neither predicted nor labeled does not count for
    the class; one in which it is only predicted, or only labeled, counts as 0. Voxels of the label
    255 count nowhere. A class that does not count in any volume is left out of the means.

    Args:
        crop: side of sliding windows in voxels, or one for each axis: that of training crops.
        overlap: share of its side that a window has in common with the next one, at least, in
            [0, 1).
        weighting: of the logits of overlapping windows, 'gaussian' or 'uniform', see
            `sliding.weights`.
        fill: level around volumes that are smaller than a window, as in the transform `pad`.
        background: whether the means over classes include class 0.
        batch_size: windows that a device computes at once, at most.
        limit: use at most so many volumes, spread over the set.

    Raises:
        UserError: a value that cannot be; when called: a label outside of the classes, or no volume
            with a class that counts.
    """
    how = sliding(crop=crop, overlap=overlap, weighting=weighting, fill=fill, batch_size=batch_size)
    check_limit("volume_segmentation", limit)

    def run(predict: Predict, data: EvalData, classes: int) -> dict[str, float]:
        counts = [
            found
            for index, row in volumes(data, "test", limit)
            if (found := _counts(predict, data, index, row, how, classes)) is not None
        ]
        names = data.source("test").names.get("segmentation") or [str(n) for n in range(classes)]
        return metrics(np.reshape(counts, (-1, classes, 3)), names, background)

    evaluator = Evaluator(
        name="volume_segmentation",
        run=partial(run, classes=0),
        outputs=("segmentation",),
        needs={"test": ("segmentation",)},
        reduce=logits_of,
        metrics={
            "dice": Metric(),
            "iou": Metric(table="further"),
            "dice/*": PER_CLASS,
            "iou/*": PER_CLASS,
        },
        advice="it is for tasks that segment, such as tasks.segment",
    )
    learned = lambda method: method.labels().get("segmentation", 0)
    return dataclasses.replace(
        evaluator,
        for_method=lambda method: dataclasses.replace(
            evaluator, run=partial(run, classes=learned(method))
        ),
    )


def _counts(
    predict: Predict, data: EvalData, index: int, row: dict, how: Sliding, classes: int
) -> np.ndarray | None:
    """[K, 3] int64 of a volume, see `count`; None if it cannot be read and is skipped."""
    total = np.zeros((classes, 3), np.int64)
    try:
        for part, predicted in label_blocks(predict, row["image"], how):
            label = np.asarray(row["segmentation"][(part,)])
            wrong = label[((label < 0) | (label >= classes)) & (label != IGNORE)]
            if wrong.size:
                raise UserError(
                    f"{data.source('test').name(index)} has the label {int(wrong[0])}, and the "
                    f"{classes} classes are 0 to {classes - 1}; {IGNORE} is ignored"
                )
            total += count(predicted, label, classes)
    except BadImage as error:
        line = unreadable(data, "test", index, error)
        if jax.process_index() == 0:
            logger.warning(line)
        return None
    return total


def count(predicted: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """[K, 3] int64, for each class the voxels with a known label that are correct, predicted, and
    labeled.

    Args:
        predicted, label: [...] int; `IGNORE` is no class.
        classes: their number, K.
    """
    known = label != IGNORE
    predicted, label = predicted[known].astype(np.int64), label[known].astype(np.int64)
    of = partial(np.bincount, minlength=classes)
    return np.stack([of(label[predicted == label]), of(predicted), of(label)], axis=-1)


def metrics(counts: np.ndarray, names: Sequence[str], background: bool) -> dict[str, float]:
    """The metrics of counts [N, K, 3], see `make`.

    Raises:
        UserError: no class counts in any volume.
    """
    correct, predicted, labeled = np.moveaxis(counts.astype(np.float64), -1, 0)  # [N, K] each
    both = predicted + labeled
    present = both > 0
    divisor = np.where(present, both, 1)
    values = {
        "dice": 2 * correct / divisor,
        "iou": correct / np.where(present, both - correct, 1),
    }
    times = present.sum(0)  # [K], volumes that count
    chosen = np.flatnonzero(times[0 if background else 1 :]) + (0 if background else 1)
    if not len(chosen):
        raise UserError(
            "volume_segmentation: no class but the background is labeled or predicted in the test "
            "set: check the labels, or set background=True"
        )
    found = {}
    for name, value in values.items():
        per_class = np.where(present, value, 0).sum(0) / np.maximum(times, 1)
        found[name] = float(per_class[chosen].mean())
        found |= {f"{name}/{names[k]}": float(per_class[k]) for k in np.flatnonzero(times)}
    return found
