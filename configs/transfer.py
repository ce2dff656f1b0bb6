"""What an encoder is worth, in one table: `configs/low_shot.py` and `configs/partial.py` together.

    mae-jax train --config scenes
    mae-jax sweep --config transfer:scenes

On scenes that takes ten minutes and an hour, on two CPU cores: configs/results/transfer_scenes.md.
"""

from ml_collections import ConfigDict

from mae_jax.configs import low_shot, partial


def get_configs(arg: str = "B/16") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment; tuning all blocks is fine-tuning, and stands there."""
    parts = partial.get_configs(arg)
    few = {name: config for name, config in parts.items() if not name.startswith("tuned-all/")}
    return low_shot.get_configs(arg) | few
