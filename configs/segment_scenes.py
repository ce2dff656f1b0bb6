"""What pre-training is worth for semantic segmentation, on scenes of several garments: the encoder
of `scenes:several` against the same network from scratch, with 2%, 10% and all of 12,000 labeled
scenes; and a linear head on the frozen encoder.

    mae-jax train --config scenes:several --workdir runs/several
    mae-jax sweep --config segment_scenes

The argument is the run to start from, by default runs/several. The number of steps grows with the
number of labels, and is the same with and without pre-training.
"""

from ml_collections import ConfigDict

from mae_jax.configs import segment

SHARES = {"2%": (0.02, 30.0, (0,)), "10%": (0.1, 12.0, (0, 1)), "100%": (1.0, 1.5, (0,))}
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
    linear = experiment(*SHARES["10%"][:2], 0)
    linear.init_from.path = start
    linear.method.args.update(head="linear", trainable="0", layer_decay=1.0)
    configs["mae, frozen + linear/10%/0"] = linear
    return configs


def experiment(share: float, epochs: float, seed: int) -> ConfigDict:
    """Segmentation with a share of the labels."""
    config = segment.get_config("scenes")
    config.seed = seed
    config.data.subset = f"share({share}, seed={seed})" if share < 1 else ""
    config.schedule.update(epochs=epochs, warmup_epochs=epochs / 20)
    return config
