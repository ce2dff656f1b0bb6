"""Segmentation of volumes from a pre-trained encoder; the argument is a folder and the number of
classes, with the background.

    mae-jax train --config volumes --workdir runs/volumes
    mae-jax train --config segment_volumes --config.init_from.path=runs/volumes
    mae-jax train --config volumes:scans --workdir runs/scans
    mae-jax train --config segment_volumes:organs,14 --config.init_from.path=runs/scans

Without a folder: `ellipsoids`, the classes of their voxels, of a tenth of 4,000 volumes.

With a folder: organs/train/images and organs/train/labels hold volumes and volumes of class numbers
under the same names; organs/test/images and organs/test/labels are for evaluation. Crops of 64 x 64
x 64, as in `volumes:scans`, whose window and patches are used, without flips, as left and right
organs differ; 255 in labels is ignored.

A head of transposed convolutions learns by Dice and cross-entropy, as in nnU-Net. The whole
volume is predicted by windows that overlap by a half, with Gaussian weights.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, volumes
from mae_jax.types import UserError


def get_config(arg: str = "") -> ConfigDict:
    """The experiment, for `ellipsoids` or for 'FOLDER,CLASSES'."""
    folder, _, classes = arg.partition(",")
    if folder and not classes.isdigit():
        raise UserError(
            f"configs/segment_volumes.py:{arg}: write a folder and the number of classes, with the "
            "background, e.g. segment_volumes:organs,14"
        )
    config = volumes.get_config(folder)
    encoder, side = config.method.args.encoder, 64 if folder else 32
    config.method.name = "tasks.segment"
    config.method.args = common.method_args(
        "tasks.segment",
        encoder=encoder,
        classes=int(classes or 4),
        head="transposed",
        loss="dice_cross_entropy",
        crop=(side, side, side),
        drop_path=0.0,
        layer_decay=0.75,
        mean=(0.35,),
        std=(0.2,),
    )
    crop, flips = f"({side}, {side}, {side})", "" if folder else "|flip(axes=(0, 1, 2))"
    config.data.update(
        fields=("segmentation",),
        batch_size=32,
        subset="share(0.1)",
        train_transform=f"pad({crop}, fill=0)|random_crop({crop}){flips}",
        eval_transform=f"pad({crop}, fill=0)|center_crop({crop})",
    )
    config.optimizer.b2 = 0.999
    config.schedule.update(base_lr=8e-3, epochs=40.0, warmup_epochs=4.0)
    config.evals.update(
        run=f"volume_segmentation(crop={side}, overlap=0.5, weighting=gaussian, limit=200)",
        figures="curves|segmentation(count=3)",
    )
    if folder:
        source = lambda split: (
            f"volume('{folder}/{split}/images', window='percentiles(0.5, 99.5)', "
            f"masks='{folder}/{split}/labels')"
        )
        config.data.update(
            train=source("train"), test=source("test"), batch_size=8, repeats=2, subset=""
        )
        config.schedule.update(base_lr=1.6e-2, epochs=200.0, warmup_epochs=10.0)
        config.evals.run = f"volume_segmentation(crop={side}, overlap=0.5, batch_size=4)"
    return config
