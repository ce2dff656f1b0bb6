"""End-to-end fine-tuning of a pre-trained encoder. The argument is SIZE/PATCH[,PRESET] for a ViT,
SIZE for a convolutional encoder, or 'scenes'.

    mae-jax train --config finetune:B/16 --config.init_from.path=runs/mae_b16
    mae-jax train --config finetune:B/16,repository --config.init_from.path=runs/mae_b16
    mae-jax train --config finetune:T --config.init_from.path=runs/fcmae_t
    mae-jax train --config finetune:scenes --config.init_from.path=runs/scenes

The preset 'paper' (default) is table 9 of arXiv 2111.06377. The preset 'repository' is the recipe
of the authors' code: random erasing, more stochastic depth for L and H, and for B half the learning
rate with a steeper layer decay; both reach the same accuracy. Convolutional encoders have a layer
decay of 0.9, as it is applied at each of their many blocks. With `method.args.trainable` only the
last blocks are trained (0: only the head, 'mlp': half a block), as in figure 9. Without init_from,
the encoder is trained from scratch.

The paper reports 83.6% (B), 85.9% (L) and 86.9% (H/14) on ImageNet-1k after 1,600 epochs of
pre-training. 'scenes' takes four minutes on two CPU cores and reaches 56.0% after the pre-training
of `configs/scenes.py`: see configs/results/transfer_scenes.md.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, scenes
from mae_jax.types import UserError

PRESETS = ("paper", "repository")
DROP_PATH = {"paper": dict(H=0.2), "repository": dict(L=0.2, H=0.3)}
"""Preset -> size -> rate of stochastic depth, where it is not 0.1."""


def get_config(arg: str = "B/16") -> ConfigDict:
    """The experiment for 'SIZE/PATCH', 'SIZE/PATCH,PRESET', 'SIZE' or 'scenes'."""
    if arg == "scenes":
        return on_scenes()
    name, _, preset = arg.partition(",")
    encoder, preset = common.encoder_of(name, "configs/finetune.py"), preset or "paper"
    if preset not in PRESETS:
        raise UserError(f"configs/finetune.py:{arg}: choose {' or '.join(PRESETS)} after the comma")
    size, repository = name.partition("/")[0], preset == "repository"
    large = size in ("L", "H")
    erasing = "|random_erasing(probability=0.25)" if repository else ""
    config = common.imagenet()
    config.data.update(
        batch_size=1024,
        train_transform=f"random_resized_crop(224, scale=(0.08, 1))|flip|rand_augment{erasing}",
    )
    config.method.name = "tasks.finetune"
    config.method.args = common.method_args(
        "tasks.finetune",
        encoder=encoder,
        drop_path=DROP_PATH[preset].get(size, 0.1),
        layer_decay=0.9 if "/" not in name else 0.65 if repository and not large else 0.75,
        dtype="bfloat16",
    )
    config.optimizer.b2 = 0.999
    config.schedule.update(
        base_lr=5e-4 if repository and not large else 1e-3,
        epochs=50.0 if large else 100.0,
        warmup_epochs=5.0,
        min_lr=1e-6,
    )
    config.evals.run = "classify"
    return config


def on_scenes() -> ConfigDict:
    """Fine-tuning on `fashion_scenes`."""
    config = scenes.get_config()
    config.data.update(
        batch_size=64, train_transform="random_resized_crop(32, scale=(0.5, 1))|flip"
    )
    config.method.name = "tasks.finetune"
    config.method.args = common.method_args(
        "tasks.finetune", encoder=scenes.ENCODER, classes=10, mixup=0.0, cutmix=0.0, dtype="float32"
    )
    config.optimizer.b2 = 0.999
    config.schedule.update(base_lr=2e-3, epochs=10.0, warmup_epochs=1.0, min_lr=1e-6)
    config.log.every = 10
    config.evals.update(every=0, run="classify")
    return config
