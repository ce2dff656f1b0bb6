"""An evaluator: the spread of the class means of features, as their root-mean-square distance from
the mean of these means. The devices return one sum per class instead of the features.
"""

import jax
import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict
from mae_jax.types import Batch, Metric


def make(classes: int = 10) -> Evaluator:
    """Makes the evaluator. In a config: evals.run='my_project.evaluator(classes=10)'

    Args:
        classes: number of classes; labels are from 0 to classes - 1.
    """

    def reduce(outputs: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """'sum' [classes, D] of the features of each class, 'count' [classes] of its examples."""
        weights = jax.nn.one_hot(batch["label"], classes) * batch["valid"][:, None]  # [B, classes]
        return {"sum": weights.T @ outputs["features"], "count": weights.sum(axis=0)}

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        sums = [jax.device_get(predict(batch)) for batch in data.eval("test")]
        count = np.sum([part["count"] for part in sums], axis=0)
        means = np.sum([part["sum"] for part in sums], axis=0)[count > 0]
        means /= count[count > 0][:, None]
        center = means.mean(axis=0)
        return {"class_spread": float(np.sqrt(np.square(means - center).sum(axis=1).mean()))}

    return Evaluator(
        name="class_spread",
        run=run,
        outputs=("features",),
        needs={"test": ("label",)},
        reduce=reduce,
        baselines=True,
        metrics={"class_spread": Metric(unit="", decimals=3)},
    )
