"""Linear probes with several learning rates at once: reports the head with the best accuracy on
held-out training images.
"""

import numpy as np

from mae_jax.evals.classify import classified
from mae_jax.evals.features import EvalData, Evaluator, Predict
from mae_jax.types import Metric


def make() -> Evaluator:
    """An evaluator: run(predict, data) -> {'probe': accuracy in [0, 1] on the test split, 'val':
    accuracy of the same head on the split 'val', 'head': number of the head, from 0}.
    """

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        val = accuracies(predict, data, "val")
        best = int(np.argmax(val))
        test = accuracies(predict, data, "test")
        return {"probe": float(test[best]), "val": float(val[best]), "head": float(best)}

    return Evaluator(
        name="probe",
        run=run,
        outputs=("head_logits",),
        needs={"val": ("label",), "test": ("label",)},
        metrics={"probe": Metric(), "val": Metric(table=""), "head": Metric("", 0, table="")},
        advice="it is for tasks.linear_probe: use classify, knn or logistic here",
    )


def accuracies(predict: Predict, data: EvalData, split: str) -> np.ndarray:
    """Accuracy of each head of a linear probe, [heads] float64."""
    hits = []
    for batch in data.eval(split):
        logits, labels = classified(predict, batch, split=split, output="head_logits")
        hits.append(logits.argmax(axis=2) == labels[:, None])  # [n, heads]
    return np.concatenate(hits).mean(axis=0)
