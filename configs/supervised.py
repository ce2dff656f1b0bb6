"""Supervised training from scratch on ImageNet-1k, a baseline for pre-training. The argument is the
encoder, SIZE/PATCH for a ViT or SIZE for a convolutional one.

    mae-jax train --config supervised:B/16

The recipe is that of ViTs trained from scratch in arXiv 2111.06377 (table 11): AdamW, base learning
rate 1e-4, weight decay 0.3, batch size 4096, 300 epochs for B and 200 for L and H with 20 of
warm-up, strong augmentation, and an exponential moving average of the weights with decay 0.9999.
The paper reports 82.3% (B) and 82.6% (L).
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(arg: str = "B/16") -> ConfigDict:
    """The experiment for an encoder, 'SIZE/PATCH' or 'SIZE'."""
    config, large = common.imagenet(), arg.startswith(("L", "H"))
    config.data.update(
        batch_size=4096,
        train_transform="random_resized_crop(224, scale=(0.08, 1))|flip|rand_augment",
    )
    config.method.name = "tasks.finetune"
    config.method.args = common.method_args(
        "tasks.finetune",
        encoder=common.encoder_of(arg, "configs/supervised.py"),
        drop_path=0.2 if large else 0.1,
        layer_decay=1.0,
        ema=0.9999,
        dtype="bfloat16",
    )
    config.optimizer.update(b2=0.95, weight_decay=0.3)
    config.schedule.update(base_lr=1e-4, epochs=200.0 if large else 300.0, warmup_epochs=20.0)
    config.evals.run = "classify"
    return config
