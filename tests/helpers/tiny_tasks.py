"""Tasks on the images of `tiny`: 'finetune' or 'linear_probe', four steps."""

from ml_collections import ConfigDict

from configs import common
from configs.linear_probe import LR_FACTORS
from tests.helpers import tiny


def get_config(task: str = "finetune") -> ConfigDict:
    """The task, from scratch unless init_from says otherwise."""
    config = tiny.get_config()
    config.method.name = f"tasks.{task}"
    factors = dict(lr_factors=LR_FACTORS) if task == "linear_probe" else {}
    config.method.args = common.method_args(
        f"tasks.{task}", encoder=tiny.ENCODER, classes=10, **factors
    )
    config.schedule.update(epochs=1.0, warmup_epochs=0.0)
    if task == "finetune":
        config.evals.run = "classify"
    else:
        config.data.held_out = 0.25
        config.schedule.epochs = 2.0
        config.evals.run = "probe|knn(k=3)|logistic(l2=0.1)"
    return config
