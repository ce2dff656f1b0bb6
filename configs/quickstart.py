"""A small masked autoencoder on `fashion_scenes`, trained on two CPU cores in a few minutes.

mae-jax train --config quickstart
"""

from ml_collections import ConfigDict

from mae_jax.configs import scenes

ENCODER = "vit(width=96, depth=4, heads=3, patch=4)"


def get_config() -> ConfigDict:
    """The quickstart experiment."""
    config = scenes.get_config()
    config.method.args.encoder = ENCODER
    config.method.args.target = "pixels(normalize=False)"  # learns sooner than normalized ones
    config.data.batch_size = 64
    config.schedule.update(base_lr=4e-3, epochs=7.0, warmup_epochs=1.0)
    config.checkpoint.every = 250
    config.log.every = 25
    return config
