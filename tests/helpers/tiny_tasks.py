"""Tasks on the images of `tiny`: 'finetune' or 'linear_probe', four steps."""

from ml_collections import ConfigDict

from configs import common
from tests.helpers import tiny


def get_config(task: str = "finetune") -> ConfigDict:
    """The task, from scratch unless init_from says otherwise."""
    args = {"finetune": common.finetune_args, "linear_probe": common.probe_args}[task]()
    config = tiny.get_config()
    config.method.name = f"tasks.{task}"
    config.method.args = ConfigDict(args | dict(encoder=tiny.ENCODER, classes=10))
    config.schedule.update(epochs=1.0, warmup_epochs=0.0)
    if task == "finetune":
        config.evals.run = "classify"
    else:
        config.data.held_out = 0.25
        config.schedule.epochs = 2.0
        config.evals.run = "probe|knn(k=3)|logistic(l2=0.1)"
    return config
