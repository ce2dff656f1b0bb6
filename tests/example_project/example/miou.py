"""An evaluator: mean intersection over union, from confusion matrices computed on the devices."""

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.data.fields import IGNORE
from mae_jax.evals.features import EvalData, Evaluator, Predict
from mae_jax.types import Batch, Metric


def make(classes: int = 11) -> Evaluator:
    """Makes the evaluator. In a config: evals.run='example.miou(classes=11)'"""

    def reduce(outputs: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """Confusion matrix [classes, classes] of a batch: rows are true classes."""
        true, predicted = batch["segmentation"], outputs["segmentation"].argmax(axis=-1)
        known = (true != IGNORE) & batch["valid"].reshape(-1, *(1,) * (true.ndim - 1))
        pairs = jnp.where(known, classes * true + predicted, classes**2)  # others: an extra bin
        return jnp.bincount(pairs.ravel(), length=classes**2 + 1)[:-1].reshape(classes, classes)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        matrix = np.sum([np.asarray(predict(batch)) for batch in data.eval("test")], axis=0)
        both, either = np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
        return {
            "miou": float(np.mean(both[either > 0] / either[either > 0])),
            "pixels": float(matrix.sum()),
        }

    return Evaluator(
        name="miou",
        run=run,
        outputs=("segmentation",),
        needs={"test": ("segmentation",)},
        reduce=reduce,
        metrics={"miou": Metric(), "pixels": Metric(unit="", decimals=0, table="")},
        advice="it is for segmentation tasks",
    )
