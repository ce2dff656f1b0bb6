"""A masked autoencoder on images of several spectral bands; the argument is a folder of TIFF files.

    mae-jax train --config multispectral
    mae-jax train --config multispectral:tiles --workdir runs/tiles

Without a folder: `spectral_fields`, 4,000 images of 32 x 32 pixels and eight bands that need no
files, on two CPU cores.

With a folder: TIFF files whose samples or pages are the bands. All bands are read, with values from
0 to 4,000 (Sentinel-2: a reflectance of 0.4). For some of them, in an order of your own, and with a
window for each:

    --config.data.train="multispectral('tiles', bands=('B04', 'B08', 'B11'), \
window=((0, 2500), (0, 5000), (0, 4000)))"

Mean and standard deviation of each band are measured over some of the files. Crops are 64 x 64
pixels. Flips are along both axes, since images from above have no upper side.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common

MEAN = (0.144, 0.177, 0.179, 0.238, 0.372, 0.459, 0.361, 0.269)
"""Of each band of the training images of `spectral_fields`."""
STD = (0.093, 0.098, 0.137, 0.144, 0.212, 0.28, 0.232, 0.215)


def get_config(folder: str = "") -> ConfigDict:
    """The experiment, for `spectral_fields` or for a folder."""
    config = common.base()
    config.method.args = common.method_args(
        "mae",
        encoder="vit(width=96, depth=4, heads=3, patch=4)",
        decoder_width=96,
        decoder_depth=1,
        decoder_heads=3,
        pool="mean",
        mean="auto" if folder else MEAN,
        std="auto" if folder else STD,
    )
    config.data.update(
        train="spectral_fields(split=train)",
        test="spectral_fields(split=test, num_examples=1000)",
        batch_size=64,
        train_transform="random_resized_crop(32, scale=(0.5, 1))|flip(axes=(0, 1))",
    )
    config.schedule.update(base_lr=4e-3, epochs=20.0, warmup_epochs=2.0)
    config.checkpoint.every = 250
    config.log.every = 25
    config.evals.run = "knn(k=20)|logistic"
    if folder:
        config.method.args.encoder = "vit(S, patch=8)"
        config.data.update(
            train=f"multispectral({folder!r}, window=(0, 4000))",
            test="",
            train_transform="random_resized_crop(64, scale=(0.25, 1))|flip(axes=(0, 1))",
            eval_transform="resize(64)|center_crop(64)",
        )
        config.schedule.update(base_lr=1e-3, epochs=200.0, warmup_epochs=10.0)
        config.evals.run = ""
    return config
