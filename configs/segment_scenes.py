"""What pre-training is worth for semantic segmentation, on scenes of several garments: the encoder
of `scenes:several` against the same network from scratch, with 2%, 10% and all of 12,000 labeled
scenes; and the frozen encoder, of which a linear layer learns.

    mae-jax train --config scenes:several --workdir runs/several
    mae-jax sweep --config segment_scenes

The argument is the run to start from, by default runs/several. The number of steps grows with the
number of labels, and is the same with and without pre-training. The head is linear: on two cores
UperNet takes three times as long for a step, and needs more steps than these to learn the classes.
"""

from ml_collections import ConfigDict

from mae_jax.configs import segment

SHARES = {"2%": (0.02, 60.0, (0,)), "10%": (0.1, 24.0, (0, 1)), "100%": (1.0, 3.0, (0,))}
"""Labels -> share, epochs, seeds."""


def get_configs(start: str = "runs/several") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    configs = {}
    for column, (share, epochs, seeds) in SHARES.items():
        for seed in seeds:
            for row, path in (("mae", start), ("scratch", "")):
                config = experiment(share, epochs, seed)
                config.init_from.path = path
                if not path:
                    config.method.args.layer_decay = 1.0
                configs[f"{row}/{column}/{seed}"] = config
    frozen = experiment(*SHARES["10%"][:2], 0)
    frozen.init_from.path = start
    frozen.method.args.update(trainable="0", layer_decay=1.0)
    configs["mae, frozen/10%/0"] = frozen
    return configs


def experiment(share: float, epochs: float, seed: int) -> ConfigDict:
    """Segmentation with a share of the labels."""
    config = segment.get_config("scenes")
    config.seed = seed
    config.method.args.head = "linear"
    config.data.update(
        subset=f"share({share}, seed={seed})" if share < 1 else "",
        train_transform="random_scale(64, ratio=(0.75, 1.5))|pad(64)|class_crop(64)|flip",
    )
    config.schedule.update(base_lr=1.6e-2, epochs=epochs, warmup_epochs=epochs / 20)
    return config
