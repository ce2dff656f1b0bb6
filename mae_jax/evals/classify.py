"""Metrics of a classifier: top-1 and top-5 accuracy, negative log-likelihood, and expected
calibration error (Guo et al. 2017, arXiv 1706.04599).

Each example is scored independently, in float64, and the scores are summed exactly: results do not
depend on the batch size, on padding, or on the number of devices and processes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Measure, Predict, check_limit, read_split
from mae_jax.spec import check_choice
from mae_jax.types import IGNORE, Metric, UserError

ONE_CLASSIFIER = (
    "it needs one classifier: fine-tune or probe first, by tasks.finetune, or tasks.linear_probe "
    "with one head, config.method.args.lr_factors=(1.0,)"
)
"""The way out where a model has no logits."""


ROWS = 1024
"""Examples that are scored at once: bounds the memory for logits in float64."""


class Scores(NamedTuple):
    """Scores of N examples."""

    rank: np.ndarray
    """[N] int: number of classes that rank before the true one; 0 if the prediction is correct.
    Ties rank the smaller class first, as argmax does: constant logits give chance accuracy."""
    nll: np.ndarray
    """[N] float64: -log of the probability of the true class, in nats."""
    confidence: np.ndarray
    """[N] float64 in (0, 1]: the probability of the predicted class."""


def make(*, split: str = "test", limit: int | None = None, among: str = "all") -> Evaluator:
    """An evaluator: run(predict, data) -> {'top1', 'top5', 'nll', 'ece'}: accuracies in [0, 1]
    (top-5 for more than five classes only), the mean negative log-likelihood in nats, and the
    expected calibration error in [0, 1] over 15 bins.

    Args:
        split: of the data.
        limit: maximum number of examples; None: all.
        among: classes that compete: 'all' of the classifier, or only those 'present' among the
            labels of the split (the protocol of ImageNet-A and -R, with 200 of the 1000 classes).

    Raises:
        UserError: an unknown `among`; when called: labels outside of the classifier's classes, or
            no examples.
    """
    check_choice("among", among, ("all", "present"))
    check_limit("classify", limit)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        outputs = read_split(predict, data, split, limit)
        logits, labels = outputs["logits"], outputs["label"]
        check_labels(labels, logits.shape[-1], split)
        present = np.unique(labels)
        if not len(present):
            raise UserError(f"the {split} split has no example that can be read")
        classes = present if among == "present" else np.arange(logits.shape[1])
        labels = np.searchsorted(classes, labels)
        rows = [slice(start, start + ROWS) for start in range(0, len(labels), ROWS)]
        scored = [score(logits[some][:, classes], labels[some]) for some in rows]
        scores = Scores(*(np.concatenate(part) for part in zip(*scored, strict=True)))
        return summary(scores, len(classes))

    return Evaluator(
        name="classify",
        run=run,
        outputs=("logits",),
        needs={split: ("label",)},
        metrics={
            "top1": Metric(),
            "top5": Metric(table="further"),
            "nll": Metric("nats", 3, lower_is_better=True, table="further"),
            "ece": Metric(lower_is_better=True, table="further"),
        },
        advice=ONE_CLASSIFIER,
        measure=measure_of,
    )


def measure_of(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Measure:
    """The measure of logits [N, K] and classes [N]: the accuracy 'top1'."""
    right = logits.argmax(axis=1) == labels
    return lambda weights: {"top1": float(np.sum(weights * right) / np.sum(weights))}


def classified(predict: Predict, batch, *, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, ..., classes] and labels [n] of the rows of a batch that are not padding.

    Args:
        split: its name, for messages.

    Raises:
        UserError: labels outside of the classifier's classes.
    """
    outputs = predict(batch)
    keep = np.asarray(outputs["valid"])
    logits, labels = np.asarray(outputs["logits"])[keep], np.asarray(outputs["label"])[keep]
    check_labels(labels, logits.shape[-1], split)
    return logits, labels


def check_labels(
    labels: np.ndarray,
    classes: int,
    split: str,
    *,
    field: str = "label",
    ignored: int | None = None,
    holds: str = "classes",
) -> None:
    """Raises UserError if one of the labels [n, ...] is neither in [0, classes) nor ignored; see
    `data.fields.HOLDS` for other labels.
    """
    labels = np.asarray(labels)
    if holds != "classes":
        valid = np.isfinite(labels) if holds == "numbers" else np.isin(labels, (0, 1, IGNORE))
        allowed = "a finite number" if holds == "numbers" else f"1, 0 or {IGNORE} (unknown)"
        for label in labels[~valid]:
            raise UserError(
                f"{field} {label} of the {split} split is not {allowed}: fix it, or leave the "
                "example out"
            )
        return
    for label in labels[((labels < 0) | (labels >= classes)) & (labels != ignored)]:
        raise UserError(
            f"{field} {label} of the {split} split is none of the {classes} classes of the "
            f"classifier, 0 to {classes - 1}: check config.method.args.classes, and that the split "
            "has the same classes as the training data"
        )


def summary(scores: Scores, classes: int) -> dict[str, float]:
    """The metrics over all examples, see `make`."""
    metrics = {"top1": float(np.mean(scores.rank < 1))}
    if classes > 5:
        metrics["top5"] = float(np.mean(scores.rank < 5))
    metrics["nll"] = math.fsum(scores.nll) / len(scores.nll)
    metrics["ece"] = calibration_error(scores.confidence, scores.rank < 1)
    return metrics


def score(logits: np.ndarray, labels: np.ndarray) -> Scores:
    """The scores of N examples.

    Args:
        logits: [N, classes] float.
        labels: [N] int, from 0 to classes - 1.
    """
    logits = logits.astype(np.float64)
    true = labels[:, None]
    logit, classes = np.take_along_axis(logits, true, axis=1), np.arange(logits.shape[1])
    # "Not smaller" rather than "larger", so that a NaN logit counts as a wrong prediction.
    above = np.where(classes < true, ~(logits < logit), ~(logits <= logit)) & (classes != true)
    largest = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - largest).sum(axis=1))
    return Scores(above.sum(axis=1), log_sum + (largest - logit)[:, 0], np.exp(-log_sum))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, *, bins: int = 15) -> float:
    """Expected calibration error: the mean over bins of |accuracy - mean confidence|, weighted by
    the number of examples; the bins are (0, 1/15], (1/15, 2/15], ... (Guo et al. 2017, equation 3).

    Args:
        confidence: [N] float64 in (0, 1]: the probability of the predicted class.
        correct: [N] bool: whether the prediction is correct.
        bins: number of bins, of equal width.
    """
    index = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    surplus = correct - confidence
    gaps = [abs(math.fsum(surplus[index == number])) for number in range(bins)]
    return math.fsum(gaps) / len(confidence)
