"""Linear probes with several learning rates at once: reports the head that is best on held-out
training images, by the criterion of the task's objective.
"""

import dataclasses
import logging

import jax
import numpy as np

from mae_jax.evals.features import EvalData, Evaluator, Predict
from mae_jax.evals.measured import read
from mae_jax.spec import build
from mae_jax.types import Method, UserError

logger = logging.getLogger(__name__)


def make() -> Evaluator:
    """An evaluator: run(predict, data) -> {'probe': the criterion on the test split, 'val': the
    criterion of the same head on the split 'val', 'head': number of the head, from 0}. The
    criterion is that of `Method.criterion`; of classes, the accuracy in [0, 1].
    """
    return dataclasses.replace(selecting("classify", "top1"), for_method=for_method)


def for_method(method: Method) -> Evaluator:
    """The evaluator with the criterion of a method."""
    return selecting(*criterion) if (criterion := method.criterion()) else make()


def selecting(judge: str, metric: str) -> Evaluator:
    """The evaluator with a metric of an evaluator that has a `measure` as criterion."""
    made = build(judge, "evals", Evaluator)
    shown, (output,), (field,) = made.metrics[metric], made.outputs, made.needs["test"]
    heads = f"head_{output}"

    def values(predict: Predict, data: EvalData, split: str) -> np.ndarray:
        """The metric of each head [heads]; NaN where it is undefined, or a prediction is NaN."""
        outputs = read(predict, data, split, None, output=heads, field=field)
        ones, found = np.ones(len(outputs.labels)), []
        for one in np.moveaxis(outputs.predictions, 1, 0):  # [N, ...] of each head
            measured = made.measure(one, outputs.labels, outputs.names)(ones)
            found.append(np.nan if np.isnan(one).any() else measured[metric])
        return np.array(found)

    def run(predict: Predict, data: EvalData) -> dict[str, float]:
        val = values(predict, data, "val")
        if np.isnan(val).all():
            raise UserError(
                f"probe: {metric} is undefined for all heads on the images of config.data.held_out:"
                " hold out more, or lower method.args.lr_factors if their training has diverged"
            )
        best = int(np.nanargmin(val) if shown.lower_is_better else np.nanargmax(val))
        test = values(predict, data, "test")[best]
        found = {"probe": float(test), "val": float(val[best]), "head": float(best)}
        if np.isnan(test):
            del found["probe"]
            if jax.process_index() == 0:
                logger.warning("probe: %s is undefined on the test images and left out", metric)
        return found

    return Evaluator(
        name="probe",
        run=run,
        outputs=(heads,),
        needs={"val": (field,), "test": (field,)},
        metrics={
            "probe": shown._replace(table="main"),
            "val": shown._replace(table=""),
            "head": shown._replace(unit="", decimals=0, table=""),
        },
        advice="it is for tasks.linear_probe: use classify, knn or logistic here",
    )
