"""A masked autoencoder on `fashion_scenes` for transfer, trained on two CPU cores in 10 minutes.

    mae-jax train --config scenes

`finetune:scenes`, `linear_probe:scenes` and `transfer:scenes` start from it. Measured on frozen
features with 4,000 labels: k-NN 27.7%, logistic regression 36.4% (before training 14.9% and 19.9%,
raw pixels 30.8% and 28.2%).
"""

from ml_collections import ConfigDict

from mae_jax.configs import quickstart

ENCODER = "vit(width=128, depth=4, heads=4, patch=8)"


def get_config() -> ConfigDict:
    """The pre-training experiment on `fashion_scenes`."""
    config = quickstart.get_config()
    config.method.args.update(encoder=ENCODER, target="pixels(normalize=True)")
    config.schedule.update(base_lr=2e-3, epochs=60.0, warmup_epochs=5.0)
    config.checkpoint.every = 500
    config.log.every = 50
    config.evals.update(every=0, run="knn(k=20, limit=4000)|logistic(limit=4000)")
    return config
