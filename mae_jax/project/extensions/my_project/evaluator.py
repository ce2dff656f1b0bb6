"""An evaluator: how well the nearest mean of a class classifies features. What leaves the devices
is one sum a class.
"""

import jax
import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict
from mae_jax.types import Batch, Metric


def make(classes: int = 10) -> Evaluator:
    """config.evals.run='my_project.evaluator(classes=10)'"""

    def reduce(outputs: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """Sum of the features of each class [classes, D], and how many there are."""
        weights = jax.nn.one_hot(batch["label"], classes) * batch["valid"][:, None]
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
