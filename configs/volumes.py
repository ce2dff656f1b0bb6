"""A masked autoencoder on volumes; the argument is a folder of them.

    mae-jax train --config volumes
    mae-jax train --config volumes:scans --workdir runs/scans

Without a folder: `ellipsoids`, 4,000 volumes of 32 x 32 x 32 that need no files, on two CPU cores.
Patches are 4 x 8 x 8, 128 of them.

With a folder: NIfTI, MGH, DICOM series, TIFF stacks and .npy, windowed by percentiles of each
volume; crops of 64 x 64 x 64 at the spacing of the files, patches of 8 x 8 x 8. For CT, give the
window in Hounsfield units, and skip series that cannot be read:

    --config.data.train="volume('scans', window=(-175, 250))" --config.data.on_error=skip

With a folder that `mae-jax prepare` has written, e.g. volumes:data/scans/1.0.0, crops are read from
its files. Their spacing varies by a tenth, and mean and standard deviation are those measured.

The targets are raw values, as normalization per patch would turn air into noise.
"""

from pathlib import Path

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(folder: str = "") -> ConfigDict:
    """The experiment, for `ellipsoids` or for a folder."""
    prepared = bool(folder) and (Path(folder) / "volumes.json").is_file()
    config = common.base()
    config.method.args = common.method_args(
        "mae",
        encoder="vit(width=96, depth=4, heads=3, patch=(4, 8, 8))",
        decoder_width=96,
        decoder_depth=1,
        decoder_heads=3,
        target="pixels(normalize=False)",
        pool="mean",
        mean="auto" if prepared else (0.35,),
        std="auto" if prepared else (0.2,),
    )
    config.data.update(
        train="ellipsoids(split=train)",
        test="ellipsoids(split=test, num_examples=1000)",
        batch_size=64,
        train_transform="flip(axes=(0, 1, 2))",
    )
    config.schedule.update(base_lr=4e-3, epochs=20.0, warmup_epochs=2.0)
    config.checkpoint.every = 250
    config.log.every = 25
    config.evals.update(run="knn(k=20)|logistic", figures="curves|planes")
    if folder:
        config.method.args.encoder = "vit(width=192, depth=6, heads=6, patch=8)"
        config.data.update(
            train=f"volume({folder!r}, window='percentiles(0.5, 99.5)')",
            test="",
            batch_size=16,
            repeats=4,  # crops of a volume that was read once
            train_transform="pad((64, 64, 64), fill=0)|random_crop((64, 64, 64))|flip(axes=(2,))",
            eval_transform="pad((64, 64, 64), fill=0)|center_crop((64, 64, 64))",
        )
        config.schedule.update(epochs=400.0, warmup_epochs=20.0)
        config.evals.run = ""
    if prepared:
        config.data.train = f"volume_records({folder!r})"
        config.data.train_transform = f"spacing_jitter((0.9, 1.1))|{config.data.train_transform}"
    return config
