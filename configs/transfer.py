"""Transfer of an encoder in one table: `configs/low_shot.py` and `configs/partial.py` together.

    mae-jax train --config scenes
    mae-jax sweep --config transfer:scenes

The first takes ten minutes, the second an hour on two CPU cores: see
configs/results/transfer_scenes.md.
"""

from ml_collections import ConfigDict

from mae_jax.configs import low_shot, partial


def get_configs(arg: str = "B/16") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment; training all blocks is the row 'finetuned' of low_shot."""
    blocks = partial.get_configs(arg)
    few = {name: config for name, config in blocks.items() if not name.startswith("tuned-all/")}
    return low_shot.get_configs(arg) | few
