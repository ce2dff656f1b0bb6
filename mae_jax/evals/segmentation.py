"""Semantic segmentation: mean intersection over union, at the original size of each image.

Intersections, predictions and labels are counted for each class over the pixels of the whole test
set that have a class; the metrics are ratios of these counts, as in PASCAL VOC and ADE20K.
"""

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict
from mae_jax.evals.full_size import (
    added,
    class_names,
    inference,
    predictions,
    probabilities,
    resized,
)
from mae_jax.types import IGNORE, Batch, Metric, UserError

PER_CLASS = Metric(table="")


def make(
    *,
    size: int = 512,
    long: int = 2048,
    crop: int = 0,
    stride: int = 0,
    scales: float | Sequence[float] = 1.0,
    flip: bool = False,
    step: int = 32,
    weighting: str = "uniform",
    limit: int | None = None,
) -> Evaluator:
    """Evaluates 'miou', 'macc' (mean recall of the classes) and 'aacc' (share of correct pixels);
    'iou/<class>' for each class. Classes that neither labels nor predictions have do not count in
    the mean; those that are predicted but never labeled count as 0 in 'miou'.

    Args:
        size: shorter side to which images are resized; 0: their own.
        long: largest longer side; 0: any.
        crop: side of sliding windows; 0: whole images.
        stride: distance of windows; 0: two thirds of the crop.
        scales: of the size, e.g. (0.75, 1, 1.25): the mean of the probabilities counts.
        flip: whether to average over mirrored images, too.
        step: sides are rounded to multiples of this, so that few shapes are compiled.
        weighting: of the logits of overlapping windows, 'uniform' or 'gaussian', see
            `sliding.weights`.
        limit: use at most so many images, spread over the test set.

    Raises:
        UserError: a value that cannot be; when called: a label outside of the classes.
    """
    how = inference(
        size=size,
        long=long,
        crop=crop,
        stride=stride,
        scales=scales,
        flip=flip,
        step=step,
        weighting=weighting,
    )
    if limit is not None and limit < 1:
        raise UserError(f"segmentation: limit={limit} must be at least 1; leave it out for all")
    once = len(how.versions) == 1

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        names = class_names(data, "test")
        counts = np.zeros((len(names), 3), np.int64)
        for found in predictions(predict, data, how, limit=limit, names=names):
            counts += found["counts"] if once else counted(found, len(names))
        return metrics(counts, names)

    main = {"miou": Metric(), "macc": Metric(table="further"), "aacc": Metric(table="further")}
    return Evaluator(
        name="segmentation",
        run=run,
        outputs=("segmentation",),
        needs={"test": ("segmentation",)},
        reduce=count if once else probabilities,
        adds=added,
        metrics=main | {"iou/*": PER_CLASS},
        advice="it is for tasks that segment, such as tasks.segment",
    )


def count(outputs: Mapping[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
    """'counts' [K, 3] int32 of each class over the pixels of a batch that have a class: correct,
    predicted, and labeled.
    """
    logits = resized(outputs, batch)
    known = (batch["segmentation"] != IGNORE) & batch["valid"][:, None, None]
    return {"counts": counts_of(logits.argmax(-1), batch["segmentation"], known, logits.shape[-1])}


def counts_of(predicted: jax.Array, label: jax.Array, known: jax.Array, classes: int) -> jax.Array:
    """[K, 3] int32, see `count`.

    Args:
        predicted, label: [...] int, classes.
        known: [...] bool: the pixels that count.
        classes: their number, K.
    """
    of = lambda values, where: jnp.bincount(
        jnp.where(where, values, classes).ravel(), length=classes + 1
    )[:classes]
    correct = of(label, known & (predicted == label))
    return jnp.stack([correct, of(predicted, known), of(label, known)], axis=-1)


def counted(found: Mapping[str, np.ndarray], classes: int) -> np.ndarray:
    """[K, 3] of `probabilities`, see `count`."""
    label = found["segmentation"]
    known = (label != IGNORE) & found["valid"][:, None, None]
    return np.asarray(counts_of(found["probabilities"].argmax(-1), label, known, classes))


def metrics(counts: np.ndarray, names: Iterable[str]) -> dict[str, float]:
    """The metrics of counts [K, 3] int64, see `make`."""
    correct, predicted, labeled = counts.T.astype(np.float64)
    if not labeled.sum():
        raise UserError("segmentation: no pixel of the test set has a class")
    either = predicted + labeled - correct
    present, known = either > 0, labeled > 0
    iou = correct[present] / either[present]
    found = {
        "miou": float(iou.mean()),
        "macc": float((correct[known] / labeled[known]).mean()),
        "aacc": float(correct.sum() / labeled.sum()),
    }
    classes = [name for name, there in zip(names, present, strict=True) if there]
    return found | {f"iou/{name}": float(x) for name, x in zip(classes, iou, strict=True)}
