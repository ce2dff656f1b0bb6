"""What pre-training on volumes is worth with few labels, for segmentation and for classes: the
encoder of `volumes` against the same network from scratch, on 2% of 4,000 labeled volumes of
ellipsoids, two seeds.

    mae-jax train --config volumes --workdir runs/volumes --config.schedule.epochs=6.0
    mae-jax sweep --config volume_transfer

The argument is the run to start from, by default runs/volumes. Steps and learning rates are the
same with and without pre-training; from scratch there is no layer decay. All is sized for twelve
minutes of two CPU cores.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, segment_volumes

SHARE = 0.02
"""Of the training set that is labeled."""
EPOCHS = 32.0
"""160 steps of 16 volumes."""


def get_configs(start: str = "runs/volumes") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    configs = {}
    for column, make in {"segmentation": segmentation, "classes": classification}.items():
        for seed in (0, 1):
            for row, path in (("mae", start), ("scratch", "")):
                config = make(seed)
                config.init_from.path = path
                if not path:
                    config.method.args.layer_decay = 1.0
                configs[f"{row}/{column}/{seed}"] = config
    return configs


def segmentation(seed: int) -> ConfigDict:
    """The class of each voxel."""
    config = segment_volumes.get_config()
    config.seed = seed
    config.data.update(batch_size=16, subset=f"share({SHARE}, seed={seed})")
    config.schedule.update(base_lr=1.6e-2, epochs=EPOCHS, warmup_epochs=EPOCHS / 10)
    config.evals.run = "volume_segmentation(crop=32, limit=200)"
    return config


def classification(seed: int) -> ConfigDict:
    """The texture of which most is visible."""
    config = segmentation(seed)
    encoder = config.method.args.encoder
    config.method.name = "tasks.finetune"
    config.method.args = common.method_args(
        "tasks.finetune",
        encoder=encoder,
        classes=3,
        drop_path=0.0,
        mean=(0.35,),
        std=(0.2,),
    )
    config.data.fields = ("label",)
    config.evals.update(run="classify(limit=500)", figures="curves|confusion")
    return config
