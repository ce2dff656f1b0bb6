"""A masked autoencoder on `fashion_scenes` that is worth transferring: about 10 minutes on two CPU
cores, a few on an accelerator.

    mae-jax train --config configs/scenes.py

`configs/finetune.py:scenes`, `configs/linear_probe.py:scenes` and `configs/low_shot.py` start from
it.
"""

from ml_collections import ConfigDict

from configs import quickstart

ENCODER = "vit(width=128, depth=4, heads=4, patch=8)"


def get_config() -> ConfigDict:
    """The experiment."""
    config = quickstart.get_config()
    config.method.args.update(encoder=ENCODER, normalize_target=True)
    config.schedule.update(base_lr=2e-3, epochs=60.0, warmup_epochs=5.0)
    config.checkpoint.every = 500
    config.log.every = 50
    config.evals.update(every=0, run="knn(k=20, limit=4000)|logistic(limit=4000)")
    return config
