"""Metrics of a classifier that count all classes the same: balanced accuracy, macro F1, and the
area under the ROC curve of each class against the others. `classify` has top-k and calibration.
"""

from collections.abc import Sequence

import numpy as np

from mae_jax.evals.agreement import by_name, confusion, f1_scores, mean, recalls
from mae_jax.evals.classify import ONE_CLASSIFIER
from mae_jax.evals.features import Evaluator
from mae_jax.evals.measured import Measure, measuring
from mae_jax.evals.ranking import Ranking
from mae_jax.types import Metric

METRICS = ("balanced_accuracy", "f1", "auroc")
PER_CLASS = ("recall/*", "f1/*", "auroc/*")


def make(
    *, split: str = "test", limit: int | None = None, bootstrap: int = 0, seed: int = 0
) -> Evaluator:
    """Evaluates 'balanced_accuracy', the mean recall of the classes in the labels; 'f1', the mean
    over classes that are labels or predictions; 'auroc', the mean over classes that some examples
    have and others have not, of two classes that of the second. Also 'recall/NAME', 'f1/NAME' and
    'auroc/NAME'. All are in [0, 1].

    Args:
        split, limit, bootstrap, seed: see `mae_jax.evals.measured.measuring`.
    """
    return measuring(
        "classes",
        measure_of,
        dict.fromkeys(METRICS, Metric()) | dict.fromkeys(PER_CLASS, Metric(table="")),
        output="logits",
        field="label",
        advice=ONE_CLASSIFIER,
        split=split,
        limit=limit,
        bootstrap=bootstrap,
        seed=seed,
    )


def measure_of(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Measure:
    """The measure of logits [N, K] and classes [N]."""
    classes = logits.shape[1]
    probabilities, predicted = softmax(logits), logits.argmax(axis=1)
    columns = range(classes) if classes > 2 else (1,)
    rankings = [Ranking(labels == column, probabilities[:, column]) for column in columns]

    def measure(weights: np.ndarray) -> dict[str, float]:
        matrix = confusion(labels, predicted, weights, classes)
        each = {
            "recall": recalls(matrix),
            "f1": f1_scores(matrix),
            "auroc": [ranking.auroc(weights) for ranking in rankings],
        }
        means = {("balanced_accuracy" if k == "recall" else k): mean(v) for k, v in each.items()}
        ranked = {"auroc": each.pop("auroc")}
        return means | by_name(each, names) | by_name(ranked, [names[k] for k in columns])

    return measure


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [..., K] float64 of logits [..., K]."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
