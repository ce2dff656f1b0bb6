"""Semantic segmentation from a pre-trained encoder; the argument is DATA:SIZE/PATCH for a ViT,
DATA:SIZE for a convolutional encoder, a folder, or 'scenes'.

    mae-jax train --config segment:ade20k:B/16 --config.init_from.path=runs/mae_b16
    mae-jax train --config segment:voc:B/16,linear --config.init_from.path=runs/mae_b16
    mae-jax train --config segment:cityscapes:L/16 --config.init_from.path=runs/mae_l16
    mae-jax train --config segment:photos --config.init_from.path=runs/mae_b16
    mae-jax train --config scenes:several --workdir runs/several
    mae-jax train --config segment:scenes --config.init_from.path=runs/several

'ade20k' is the published recipe of MAE with UperNet: 160,000 steps of 16 crops of 512 pixels, AdamW
at 1e-4 with layer decay 0.65 (B), a linear fall, relative position bias. L has BEiT-L's learning
rate, 2e-5, with layer decay 0.95 and drop path 0.2. The paper reports 48.1 mIoU (B) and 53.6 (L);
the public code for B reached 38.7 after a tenth of the steps, and 48.2 at the end. Worth a search:
learning rate, layer decay and drop path. 'voc' and 'cityscapes' have the same recipe with as many
epochs as make 40,000 and 80,000 steps of 16.

Behind a comma, ',linear' puts a linear layer on the frozen encoder. A masked autoencoder is poor
at that: fine-tune it for results.

A folder holds train/images, train/labels, test/images and test/labels, with label images of the
names of their images, and classes.txt, a name on each line.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from mae_jax.configs import common, scenes
from mae_jax.types import UserError

HEADS = ("upernet", "linear")
STEPS_BATCH = 16


class Data(NamedTuple):
    """A published set and its recipe."""

    train: str
    test: str
    classes: int
    epochs: float
    warmup_epochs: float
    """Of 1,500 steps."""
    long: int
    """Longer side in pixels of scaled images, at most, where the scale is 1."""


def _pairs(images: str, labels: str, options: str) -> str:
    return f"pairs('data/{images}', 'data/{labels}', {options})"


_VOC = "voc/JPEGImages", "voc/SegmentationClass"
_CITY = "ids=cityscapes, suffixes=('_leftImg8bit', '_gtFine_labelIds')"
_ADE = "classes=150, reduce_zero_label=True"

DATA = {
    "ade20k": Data(
        _pairs("ade20k/images/training", "ade20k/annotations/training", _ADE),
        _pairs("ade20k/images/validation", "ade20k/annotations/validation", _ADE),
        classes=150,
        epochs=160_000 * STEPS_BATCH / 20_210,
        warmup_epochs=1500 * STEPS_BATCH / 20_210,
        long=2048,
    ),
    "voc": Data(
        _pairs(*_VOC, "classes=21, listed='data/voc/ImageSets/Segmentation/train.txt'"),
        _pairs(*_VOC, "classes=21, listed='data/voc/ImageSets/Segmentation/val.txt'"),
        classes=21,
        epochs=40_000 * STEPS_BATCH / 1464,
        warmup_epochs=1500 * STEPS_BATCH / 1464,
        long=2048,
    ),
    "cityscapes": Data(
        _pairs("cityscapes/leftImg8bit/train", "cityscapes/gtFine/train", _CITY),
        _pairs("cityscapes/leftImg8bit/val", "cityscapes/gtFine/val", _CITY),
        classes=19,
        epochs=80_000 * STEPS_BATCH / 2975,
        warmup_epochs=1500 * STEPS_BATCH / 2975,
        long=2048,
    ),
}


def get_config(arg: str = "ade20k:B/16") -> ConfigDict:
    """The experiment for 'DATA:ENCODER', 'DATA:ENCODER,HEAD', a folder, or 'scenes'."""
    if arg == "scenes":
        return on_scenes()
    name, _, rest = arg.partition(":")
    if not rest:
        return on_folder(arg)
    size, _, head = rest.partition(",")
    if name not in DATA or head not in ("", *HEADS):
        raise UserError(
            f"configs/segment.py:{arg}: write {', '.join(DATA)} and :SIZE/PATCH, e.g. ade20k:B/16, "
            "and behind it nothing or ,linear"
        )
    return recipe(name, size, head or "upernet")


def recipe(name: str, size: str, head: str) -> ConfigDict:
    """The published recipe for a data set; see above."""
    data, encoder = DATA[name], common.encoder_of(size, f"configs/segment.py:{name}")
    large = size.startswith("L")
    relative = "/" in size and head == "upernet"
    if relative:
        encoder = encoder.replace(")", ", relative_positions=True)")
    config = fine_tuning(data.train, data.test, long=data.long)
    linear = dict(trainable=0, layer_decay=1.0) if head == "linear" else {}
    config.method.args = common.method_args(
        "tasks.segment",
        **dict(
            encoder=encoder,
            classes=data.classes,
            head=head,
            photometric=True,
            drop_path=0.2 if large else 0.1,
            layer_decay=0.9 if "/" not in size else 0.95 if large else 0.65,
            dtype="bfloat16",
        )
        | linear,
    )
    lr = 1e-3 if head == "linear" else 2e-5 if large else 1e-4
    config.schedule.update(
        base_lr=lr * 256 / STEPS_BATCH, epochs=data.epochs, warmup_epochs=data.warmup_epochs
    )
    # Relative positions are for crops alone: larger images go through windows of that size.
    config.evals.run = "segmentation(size=512, crop=512, stride=341)"
    return config


def fine_tuning(train: str, test: str, *, long: int) -> ConfigDict:
    """What all have in common: crops of 512 pixels in batches of 16, AdamW, a linear fall."""
    config = common.base()
    config.data.update(
        train=train,
        test=test,
        batch_size=STEPS_BATCH,
        fields=("segmentation",),
        train_transform=f"random_scale(512, long={long})|pad(512)|class_crop(512)|flip",
    )
    config.method.name = "tasks.segment"
    config.optimizer.b2 = 0.999
    config.schedule.decay = "linear"
    config.checkpoint.every = 2000
    config.evals.figures = "curves|segmentation"
    return config


def on_folder(folder: str) -> ConfigDict:
    """Your own images, with fewer steps."""
    classes = f"{folder}/classes.txt"
    train, test = (
        f"pairs('{folder}/{split}/images', '{folder}/{split}/labels', classes='{classes}')"
        for split in ("train", "test")
    )
    config = fine_tuning(train, test, long=2048)
    config.method.args = common.method_args("tasks.segment", classes=classes_of(classes))
    config.schedule.update(base_lr=1.6e-3, epochs=50.0, warmup_epochs=2.0)
    config.checkpoint.every = 200
    config.log.every = 10
    config.evals.run = "segmentation(size=512)"
    return config


def classes_of(path: str) -> int:
    """Number of names in a file, one a line.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return sum(bool(line.strip()) for line in file)
    except OSError as error:
        raise UserError(
            f"configs/segment.py: cannot read {path} ({error.strerror}): write a name of a class "
            "on each line; or choose scenes, or ade20k:B/16"
        ) from error


def on_scenes() -> ConfigDict:
    """Scenes of several garments, with the encoder of `configs/scenes.py:several`."""
    config = scenes.get_config("several")
    config.data.update(
        batch_size=32,
        fields=("segmentation",),
        train_transform="random_scale(64)|pad(64)|class_crop(64)|flip",
        subset="share(0.1)",
    )
    config.method.name = "tasks.segment"
    config.method.args = common.method_args(
        "tasks.segment",
        encoder=scenes.ENCODER,
        classes=11,
        crop=64,
        width=32,
        layer_decay=0.75,
        drop_path=0.0,
    )
    config.optimizer.b2 = 0.999
    config.schedule.update(base_lr=8e-3, epochs=20.0, warmup_epochs=1.0, decay="linear")
    config.checkpoint.every = 200
    config.log.every = 10
    config.evals.update(run="segmentation(size=64)", figures="curves|segmentation(count=8)")
    return config
