"""What pre-training is worth for detection, on scenes of several garments: the encoder of
`scenes:several` against the same network from scratch, with 10% and all of 12,000 labeled scenes.

    mae-jax train --config scenes:several --workdir runs/several
    mae-jax sweep --config detect_scenes

It takes about an hour of two CPU cores: configs/results/detect_scenes.md. The argument is the run
to start from, by default runs/several. All runs see 4,800 scenes: 10% of the scenes four times, or
40% of them once.
"""

from ml_collections import ConfigDict

from mae_jax.configs import detect

SHARES = {"10%": (0.1, 4.0, (0, 1)), "100%": (1.0, 0.4, (0,))}
"""Labels -> share, epochs, seeds."""


def get_configs(start: str = "runs/several") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    configs = {}
    for column, (share, epochs, seeds) in SHARES.items():
        for seed in seeds:
            for row, path in (("mae", start), ("scratch", "")):
                config = detect.get_config("scenes")
                config.seed = seed
                config.data.subset = f"share({share}, seed={seed})" if share < 1 else ""
                config.schedule.update(epochs=epochs, warmup_epochs=epochs / 20)
                config.init_from.path = path
                if not path:
                    config.method.args.layer_decay = 1.0
                configs[f"{row}/{column}/{seed}"] = config
    return configs
