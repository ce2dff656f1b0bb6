"""How well a classifier classifies: top-1 and top-5 accuracy, negative log-likelihood, and expected
calibration error (Guo et al. 2017, arXiv 1706.04599).

Every example is scored by itself, in float64, and the scores are added exactly: the numbers do not
depend on the batch size, on padding, or on how many devices and processes share the work.
"""

import math
from typing import NamedTuple

import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict, check_limit, read_split
from mae_jax.spec import check_choice
from mae_jax.types import Metric, UserError

ONE_CLASSIFIER = (
    "it needs one classifier: fine-tune or probe first, by tasks.finetune, or tasks.linear_probe "
    "with one head, config.method.args.lr_factors=(1.0,)"
)
"""What to do about a model without logits."""


ROWS = 1024
"""That are scored at once, in float64."""


class Scores(NamedTuple):
    """What a classifier says of each of N examples."""

    rank: np.ndarray
    """[N] int: how many classes stand before the true one; 0 if it is the predicted one. Of equal
    logits the smaller class stands first, as for argmax: who says the same of every image is right
    by chance."""
    nll: np.ndarray
    """[N] float64: -log of the probability of the true class, in nats."""
    confidence: np.ndarray
    """[N] float64 in (0, 1]: the probability of the predicted class."""


def make(*, split: str = "test", limit: int | None = None, among: str = "all"):
    """An evaluator: run(predict, data) -> {'top1', 'top5', 'nll', 'ece'}: accuracies in [0, 1]
    (top-5 for more than five classes only), the mean negative log-likelihood in nats, and the
    expected calibration error in [0, 1] over 15 bins.

    Args:
        split: of the data.
        limit: use this many examples only.
        among: 'all' classes of the classifier compete, or those 'present' among the labels of the
            split: the protocol of ImageNet-A and -R, which have 200 of the 1000 classes.

    Raises:
        UserError: an unknown `among`; when called: labels that are none of the classifier's, no
            examples.
    """
    check_choice("among", among, ("all", "present"))
    check_limit("classify", limit)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        found = read_split(predict, data, split, limit)
        logits, labels = found["logits"], found["label"]
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
    )


def classified(
    predict: Predict, batch, *, split: str, output: str = "logits"
) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, ..., classes] and labels [n] of the rows of a batch that are no padding.

    Args:
        split: what messages call it.
        output: of the model, that is wanted.

    Raises:
        UserError: labels that are none of the classifier's.
    """
    outputs = predict(batch)
    keep = np.asarray(outputs["valid"])
    logits, labels = np.asarray(outputs[output])[keep], np.asarray(outputs["label"])[keep]
    check_labels(labels, logits.shape[-1], split)
    return logits, labels


def check_labels(
    labels: np.ndarray,
    classes: int,
    split: str,
    *,
    field: str = "label",
    ignored: int | None = None,
) -> None:
    """Raises UserError if one of the labels [n, ...] is neither in [0, classes) nor ignored."""
    labels = np.asarray(labels)
    for label in labels[((labels < 0) | (labels >= classes)) & (labels != ignored)]:
        raise UserError(
            f"{field} {label} of the {split} split is none of the {classes} classes of the "
            f"classifier, 0 to {classes - 1}: check config.method.args.classes, and that the split "
            "has the classes that it was trained on"
        )


def summary(scores: Scores, classes: int) -> dict[str, float]:
    """The metrics of all examples, see `make`."""
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
    own, classes = np.take_along_axis(logits, true, axis=1), np.arange(logits.shape[1])
    # "Not smaller" rather than "larger": nothing is right about a logit that is not a number.
    before = np.where(classes < true, ~(logits < own), ~(logits <= own)) & (classes != true)
    largest = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - largest).sum(axis=1))
    return Scores(before.sum(axis=1), log_sum + (largest - own)[:, 0], np.exp(-log_sum))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, *, bins: int = 15) -> float:
    """Expected calibration error: the mean over examples of |accuracy - mean confidence| in the bin
    of each, the bins being (0, 1/15], (1/15, 2/15], ... (Guo et al. 2017, equation 3).

    Args:
        confidence: [N] float64 in (0, 1]: the probability of the predicted class.
        correct: [N] bool: whether it was the true one.
        bins: of equal width.
    """
    place = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    surplus = correct - confidence
    gaps = [abs(math.fsum(surplus[place == number])) for number in range(bins)]
    return math.fsum(gaps) / len(confidence)
