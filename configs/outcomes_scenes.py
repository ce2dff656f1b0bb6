"""What pre-training is worth for labels other than one class: several garments, the size of a
garment, and ordered classes of that size, from 3,000 labeled scenes; the encoder of `scenes`
against the same network from scratch.

    mae-jax train --config scenes
    mae-jax sweep --config outcomes_scenes

The argument is the run to start from, by default runs/scenes.
"""

from ml_collections import ConfigDict

from mae_jax.configs import outcomes


def get_configs(start: str = "runs/scenes") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    configs = {}
    for kind in outcomes.KINDS:
        for row, path in (("mae", start), ("scratch", "")):
            config = outcomes.get_config(kind)
            config.init_from.path = path
            if not path:
                config.method.args.layer_decay = 1.0
            configs[f"{row}/{kind}/0"] = config
    return configs
