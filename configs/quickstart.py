"""A small masked autoencoder on `fashion_scenes`, trained on two CPU cores in a few minutes.

mae-jax train --config quickstart --workdir runs/quickstart
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config() -> ConfigDict:
    """The quickstart experiment."""
    config = common.base()
    config.data.update(
        train="fashion_scenes(split=train)",
        test="fashion_scenes(split=test)",
        batch_size=128,
        train_transform="random_resized_crop(32, scale=(0.5, 1))|flip",
        eval_transform="resize(32)|center_crop(32)",
    )
    config.method.args = common.method_args(
        "mae",
        encoder="vit(width=128, depth=4, heads=4, patch=4)",
        decoder_width=64,
        decoder_depth=1,
        decoder_heads=4,
        target="pixels(normalize=False)",  # in so short a run, raw pixels learn better features
        pool="mean",
    )
    config.schedule.update(base_lr=4e-3, epochs=6.0, warmup_epochs=1.0)
    config.checkpoint.every = 150
    config.log.every = 10
    config.evals.update(every=200, run="knn(k=20, limit=4000)|logistic(limit=4000)")
    return config
