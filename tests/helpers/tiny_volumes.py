"""Volumes in four steps: 'mae', 'segment' or 'classify', on 16 ellipsoids of 16 x 16 x 16."""

from ml_collections import ConfigDict

from configs import common

ENCODER = "vit(width=24, depth=1, heads=2, patch=(4, 8, 8))"
TASKS = {
    "mae": ("mae", dict(decoder_width=24, decoder_depth=1, decoder_heads=2, pool="mean")),
    "segment": (
        "tasks.segment",
        dict(
            classes=4,
            head="transposed",
            loss="dice_cross_entropy",
            crop=16,
            drop_path=0.1,
            layer_decay=0.75,
        ),
    ),
    "classify": ("tasks.finetune", dict(classes=3, drop_path=0.1)),
}


def get_config(task: str = "segment") -> ConfigDict:
    """From scratch, a checkpoint every two steps."""
    config = common.base()
    config.method.name, args = TASKS[task]
    config.method.args = common.method_args(config.method.name, encoder=ENCODER, **args)
    config.data.update(
        train="ellipsoids(split=train, size=16, num_examples=16)",
        test="ellipsoids(split=test, size=16, num_examples=3)",
        batch_size=4,
        workers=1,
        train_transform="flip(axes=(0, 1, 2))",
    )
    if task == "classify":
        config.data.update(
            train_transform="random_crop((16, 8, 8))|flip", eval_transform="center_crop((16, 8, 8))"
        )
    if task == "segment":
        config.data.update(
            fields=("segmentation",),
            train_transform="pad((16, 16, 16), fill=0)|random_crop((16, 16, 16))",
            eval_transform="pad((16, 16, 16), fill=0)|center_crop((16, 16, 16))",
        )
    config.schedule.update(base_lr=0.1, epochs=1.0, warmup_epochs=0.0)
    config.checkpoint.every = 2
    config.log.every = 1
    config.evals.run = {
        "mae": "knn(k=3)",
        "segment": "volume_segmentation(crop=16, overlap=0)",
        "classify": "classify|views(size=(16, 8, 8), clips=1, crops=2)",
    }[task]
    config.evals.figures = {"mae": "planes(count=2)|film(count=1)", "segment": "segmentation"}.get(
        task, ""
    )
    return config
