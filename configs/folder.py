"""A masked autoencoder on a folder of your own images; the argument is the folder.

    mae-jax train --config folder:photos --workdir runs/photos

Images of any size are cropped at random to 96 x 96 pixels and split into 8 x 8 patches. On an
accelerator, use a larger encoder and larger crops:

    --config.method.args.encoder='vit(S, patch=16)' \
    --config.data.train_transform='random_resized_crop(224, scale=(0.2, 1))|flip' \
    --config.data.eval_transform='resize(256)|center_crop(224)'
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(folder: str = "photos") -> ConfigDict:
    """The experiment for a folder."""
    config = common.base()
    config.data.update(
        train=f"folder({folder!r})",
        batch_size=64,
        train_transform="random_resized_crop(96, scale=(0.2, 1))|flip",
        eval_transform="resize(96)|center_crop(96)",
    )
    config.method.args = common.method_args(
        "mae",
        encoder="vit(Ti, patch=8)",
        decoder_width=128,
        decoder_depth=2,
        decoder_heads=4,
        pool="mean",
    )
    config.schedule.update(base_lr=1e-3, epochs=100.0, warmup_epochs=5.0)
    config.checkpoint.every = 200
    config.log.every = 10
    return config
