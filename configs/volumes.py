"""A masked autoencoder on volumes; the argument is a folder of them, words, or both with commas.

    mae-jax train --config volumes
    mae-jax train --config volumes:foreground
    mae-jax train --config volumes:scans --workdir runs/scans
    mae-jax train --config volumes:scans,centimeters --workdir runs/scans
    mae-jax train --config volumes:scans,large --workdir runs/large

Without a folder: `ellipsoids`, 4,000 volumes of 32 x 32 x 32 that need no files, on two CPU cores.
Patches are 4 x 8 x 8, 128 of them.

With a folder: NIfTI, MGH, DICOM series, TIFF stacks and .npy, windowed by percentiles of each
volume; crops of 64 x 64 x 64 at the spacing of the files, patches of 8 x 8 x 8; black voxels do not
count in the loss. For CT, give the window in Hounsfield units, and skip series that cannot be read:

    --config.data.train="volume('scans', window=(-175, 250))" --config.data.on_error=skip

With a folder that `mae-jax prepare` has written, e.g. volumes:data/scans/1.0.0, crops are read from
its files. Their spacing varies by a tenth, and mean and standard deviation are those measured.

Words:

- `foreground`: only voxels of a class in the field `segmentation` count in the loss.
- `centimeters`: positions in centimeters, of voxels of 1 mm: other spacings are an argument.
- `large`: ViT-B on crops of 160 x 160 x 160, 8,000 patches, with a decoder of two blocks that
  attends to the 2,000 visible ones and predicts a quarter of the others, in batches of 2.

The targets are raw values, as normalization per patch would turn air into noise.
"""

from pathlib import Path

from ml_collections import ConfigDict

from mae_jax.configs import common

WORDS = ("foreground", "large", "centimeters")
"""In the order in which they apply: `large` replaces the encoder."""


def get_config(arg: str = "") -> ConfigDict:
    """The experiment, for `ellipsoids` or for a folder, and words."""
    parts = arg.split(",") if arg else []
    words = [part for part in parts if part in WORDS]
    folder = ",".join(part for part in parts if part not in WORDS)
    config = scans(folder) if folder else ellipsoids()
    for word in sorted(words, key=WORDS.index):
        vary(config, word)
    return config


def ellipsoids() -> ConfigDict:
    """Generated volumes."""
    config = common.base()
    config.method.args = common.method_args(
        "mae",
        encoder="vit(width=96, depth=4, heads=3, patch=(4, 8, 8))",
        decoder_width=96,
        decoder_depth=1,
        decoder_heads=3,
        target="pixels(normalize=False)",
        pool="mean",
        mean=(0.35,),
        std=(0.2,),
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
    return config


def scans(folder: str) -> ConfigDict:
    """Volumes in a folder."""
    config = ellipsoids()
    config.method.args.update(
        encoder="vit(width=192, depth=6, heads=6, patch=8)", loss_mask="above(0)"
    )
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
    if (Path(folder) / "volumes.json").is_file():  # `mae-jax prepare` has written it
        config.data.train = f"volume_records({folder!r})"
        config.data.train_transform = f"spacing_jitter((0.9, 1.1))|{config.data.train_transform}"
        with config.ignore_type():
            config.method.args.update(mean="auto", std="auto")
    return config


def vary(config: ConfigDict, word: str) -> None:
    """Changes the config by one of WORDS."""
    args = config.method.args
    if word == "foreground":
        args.loss_mask = "segmentation"
        config.data.fields = (*config.data.fields, "segmentation")
    elif word == "centimeters":
        args.encoder = f"{args.encoder[:-1]}, spacing=(1.0, 1.0, 1.0))"
    else:
        args.update(
            encoder="vit(B, patch=8, remat=dots)",
            decoder="cross",
            decoder_width=384,
            decoder_depth=2,
            decoder_heads=6,
            decoder_remat="dots",
            predict_share=0.25,
            dtype="bfloat16",
        )
        for name in ("train_transform", "eval_transform"):
            config.data[name] = config.data[name].replace("64, 64, 64", "160, 160, 160")
        config.data.update(batch_size=2, repeats=1)
        config.schedule.base_lr *= args.predict_share
