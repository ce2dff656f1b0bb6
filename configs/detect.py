"""Object detection and instance segmentation from a pre-trained encoder; the argument is DATA:SIZE,
a folder, or 'scenes'.

    mae-jax train --config detect:coco:B --config.init_from.path=runs/mae_b16
    mae-jax train --config detect:voc:B --config.init_from.path=runs/mae_b16
    mae-jax train --config detect:photos --config.init_from.path=runs/mae_b16
    mae-jax train --config scenes:several --workdir runs/several
    mae-jax train --config detect:scenes --config.init_from.path=runs/several

'coco' is the published recipe of ViTDet with Mask R-CNN (arXiv 2203.16527, detectron2's release):
100 epochs (75 for H) of large-scale jitter to 1024 pixels in batches of 64, AdamW at 1e-4, a tenth
of it after 8/9 of the steps and a hundredth after 26/27. Its reported AP, from weights of MAE:

    B  51.6 box  45.9 mask        L  55.5  49.2        H  56.7  50.2

H has patches of 16 pixels: the patch embedding of MAE's ViT-H/14 is resampled.

'voc' has the boxes of PASCAL VOC 2012 alone. An encoder of four stages, as T for convnext(T), has a
pyramid of its own.

A folder holds train/images, test/images, train.json and test.json, annotations in COCO's format.
YOLO's and labelme's files are read by the sources `yolo` and `labelme`.
"""

import json

from ml_collections import ConfigDict

from mae_jax.configs import common, scenes
from mae_jax.models import vit
from mae_jax.types import UserError

RECIPES = {
    "B": dict(layer_decay=0.7, drop_path=0.1),
    "L": dict(layer_decay=0.8, drop_path=0.4),
    "H": dict(layer_decay=0.9, drop_path=0.5),
}
EPOCHS = {"H": 75.0}
"""Where they are not 100."""
IMAGES, STEPS = 117_266, 250
"""Images of COCO with objects, and steps of the warm-up."""
DATA = {
    "coco": (
        "coco('data/coco/train2017', 'data/coco/annotations/instances_train2017.json')",
        "coco('data/coco/val2017', 'data/coco/annotations/instances_val2017.json')",
        80,
    ),
    "voc": tuple(
        f"voc('data/voc/JPEGImages', 'data/voc/Annotations', classes='data/voc/classes.txt', "
        f"listed='data/voc/ImageSets/Main/{split}.txt')"
        for split in ("train", "val")
    )
    + (20,),
}
"""Training set, test set, number of classes."""


def get_config(arg: str = "coco:B") -> ConfigDict:
    """The experiment for 'DATA:SIZE', a folder, or 'scenes'."""
    if arg == "scenes":
        return on_scenes()
    name, _, size = arg.partition(":")
    if not size:
        return on_folder(arg)
    if name not in DATA:
        raise UserError(
            f"configs/detect.py:{arg}: write {' or '.join(DATA)} and :SIZE, e.g. coco:B; a folder; "
            "or scenes"
        )
    return recipe(name, size)


def recipe(name: str, size: str) -> ConfigDict:
    """The published recipe for a data set."""
    train, test, classes = DATA[name]
    config = fine_tuning(train, test, masks=name == "coco")
    plain = size in vit.SIZES
    encoder = f"vitdet({size})" if plain else common.encoder_of(size, f"configs/detect.py:{name}")
    config.method.args = common.method_args(
        "tasks.detect",
        **dict(encoder=encoder, classes=classes, masks=name == "coco", dtype="bfloat16")
        | RECIPES.get(size, RECIPES["B"]),
    )
    config.schedule.update(
        base_lr=1e-4 * 256 / 64,
        epochs=EPOCHS.get(size, 100.0),
        warmup_epochs=STEPS * 64 / IMAGES,
    )
    return config


def fine_tuning(train: str, test: str, *, masks: bool = True, size: int = 1024) -> ConfigDict:
    """What all have in common."""
    config = common.base()
    config.data.update(
        train=train,
        test=test,
        batch_size=64,
        fields=("box", "box_label", *(("box_mask",) if masks else ())),
        train_transform=f"flip|large_scale_jitter({size})",
        eval_transform=f"large_scale_jitter({size}, scale=(1, 1))",
    )
    config.method.name = "tasks.detect"
    config.optimizer.update(b2=0.999, weight_decay=0.1)
    config.schedule.decay = "steps"
    config.checkpoint.every = 2000
    config.evals.update(run=f"detection(size={size})", figures="curves|detection")
    return config


def on_folder(folder: str) -> ConfigDict:
    """Your own images, with fewer steps."""
    train, test = (
        f"coco('{folder}/{split}/images', '{folder}/{split}.json')" for split in ("train", "test")
    )
    config = fine_tuning(train, test)
    config.data.batch_size = 16
    config.method.args = common.method_args("tasks.detect", classes=classes_of(folder))
    config.schedule.update(base_lr=1.6e-3, epochs=50.0, warmup_epochs=2.0)
    config.checkpoint.every = 200
    config.log.every = 10
    return config


def classes_of(folder: str) -> int:
    """Number of categories in a folder's train.json.

    Raises:
        UserError: it cannot be read.
    """
    path = f"{folder}/train.json"
    try:
        with open(path, encoding="utf-8") as file:
            return len(json.load(file)["categories"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"configs/detect.py: cannot read the categories of {path} ({error}): it should be a "
            "file in COCO's format; or choose scenes, or coco:B"
        ) from error


def on_scenes() -> ConfigDict:
    """Scenes of several garments, with the encoder of `configs/scenes.py:several`, and small heads:
    the published ones take seconds an image on a CPU.
    """
    options = "size=96, objects=(1, 6)"
    config = fine_tuning(
        f"fashion_scenes(split=train, {options})",
        f"fashion_scenes(split=test, {options})",
        size=96,
    )
    config.data.update(
        batch_size=8,
        subset="share(0.1)",
        train_transform="flip|large_scale_jitter(96, scale=(0.7, 1.4))",
    )
    encoder = scenes.ENCODER.replace("vit(", "vitdet(").replace(
        ")", ", window=6, global_blocks=2, position_grid=8)"
    )
    config.method.args = common.method_args(
        "tasks.detect",
        encoder=encoder,
        classes=10,
        size=96,
        objects=6,
        mask_size=28,
        width=64,
        hidden=128,
        head_convs=2,
        anchor_scale=8.0,
        proposals=64,
        sample=32,
        detections=20,
        drop_path=0.0,
        layer_decay=0.75,
    )
    config.optimizer.weight_decay = 0.05
    config.schedule.update(base_lr=3.2e-2, epochs=4.0, warmup_epochs=0.2)
    config.checkpoint.every = 150
    config.log.every = 10
    config.evals.update(
        run="detection(size=96, batch_size=16)", figures="curves|detection(score=0.1)"
    )
    return config
