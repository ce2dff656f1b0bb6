"""Linear probes with several learning rates at once: the head that is best on held-out training
images is the one that is reported.
"""

import jax.numpy as jnp
import numpy as np

from mae_jax.evals.features import EvalData, Predict
from mae_jax.types import UserError


def make():
    """An evaluator: run(predict, data) -> {'probe': accuracy in [0, 1] on the test split, 'val':
    that of the same head on the split 'val', 'head': its number}.
    """

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        val = accuracies(predict, data, "val")
        best = int(np.argmax(val))
        test = accuracies(predict, data, "test")
        return {"probe": float(test[best]), "val": float(val[best]), "head": float(best)}

    return run


def accuracies(predict: Predict, data: EvalData, split: str) -> np.ndarray:
    """[heads] float64, of every head of a linear probe.

    Raises:
        UserError: the model has no such heads.
    """
    hits, count = 0, 0
    for batch in data.eval(split):
        outputs = predict(batch)
        if "head_logits" not in outputs:
            raise UserError("probe is for tasks.linear_probe: use classify, knn or logistic")
        mask = np.asarray(outputs["mask"])
        best = np.asarray(jnp.argmax(outputs["head_logits"], axis=2))[mask]
        hits = hits + (best == np.asarray(outputs["label"])[mask, None]).sum(axis=0)
        count += mask.sum()
    return hits / count
