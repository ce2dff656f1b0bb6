"""An experiment to edit: a small masked autoencoder, a few minutes on two CPU cores.

    mae-jax train --config experiment.py

Every value can be changed here, or for one run on the command line: --config.key.path=value.
`mae-jax train --config experiment.py --print-config` lists all of them.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config() -> ConfigDict:
    """The experiment: the library's defaults in every section, then the values set here."""
    config = common.base()
    config.data.update(
        # The images that come with the library. Your own: "folder('/path/to/photos')".
        train="fashion_scenes(split=train)",
        test="fashion_scenes(split=test)",  # held-out images; "" if there are none
        batch_size=128,
        train_transform="random_resized_crop(32, scale=(0.5, 1))|flip",
        eval_transform="resize(32)|center_crop(32)",
    )
    config.method.name = "mae"
    config.method.args = common.method_args(
        "mae",
        encoder="vit(width=128, depth=4, heads=4, patch=4)",  # or e.g. "vit(S, patch=16)"
        decoder_width=64,
        decoder_depth=1,
        decoder_heads=4,
        mask_ratio=0.75,
        target="pixels(normalize=False)",
        pool="mean",
    )
    config.schedule.update(base_lr=4e-3, epochs=3.0, warmup_epochs=0.5)
    config.checkpoint.every = 100  # steps between two checkpoints
    config.log.every = 10  # steps between two lines
    # Needs labels: images in one sub-folder for each class. Without them: run="".
    config.evals.update(every=0, run="knn(k=20, limit=2000)|logistic(limit=2000)")
    return config
