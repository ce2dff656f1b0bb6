"""Partial fine-tuning of the last 0, 1, 2, ... blocks or half a block (its MLP), as in figure 9 of
arXiv 2111.06377. The paper reports for L/16: 73.5% with 0 blocks, 79.1% with half a block, 81.0%
with 1, 83.1% with 2, 84.2% with 4, and 84.9% with all.

    mae-jax sweep --config partial:B/16,runs/mae_b16
    mae-jax sweep --config partial:scenes

The argument is that of `configs/low_shot.py`. The schedule is that of fine-tuning in all cases; the
paper tunes the number of epochs for each, and its result for 0 blocks is linear probing, which is
`configs/linear_probe.py`.
"""

from ml_collections import ConfigDict

from mae_jax.configs import finetune
from mae_jax.configs.low_shot import SEEDS, default_start

TUNED = ("0", "mlp", "1", "2", "4", "6", "all")


def get_configs(arg: str = "B/16") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    model, _, start = arg.partition(",")
    scenes = model == "scenes"
    configs = {}
    for seed in SEEDS if scenes else SEEDS[:1]:
        for trainable in [t for t in TUNED if not scenes or t in ("0", "1", "2", "all")]:
            config = finetune.get_config(model)
            config.seed = seed
            config.method.args.trainable = trainable
            config.init_from.path = start or default_start(model)
            configs[f"tuned-{trainable}/100%/{seed}"] = config
    return configs
