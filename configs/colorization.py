"""Colorization (arXiv 1603.08511) on ImageNet-1k. The argument is the encoder, SIZE/PATCH for a ViT
or SIZE for a convolutional one.

    mae-jax train --config colorization:T

The recipe is the paper's: Adam with b2 = 0.99, learning rate 3e-5, weight decay 1e-3, batch size 40
for 450,000 steps (14 epochs). Differences: the paper's network resembles VGG; weight decay is
decoupled here, as in AdamW. VISSL reports 40.1% linear-probe accuracy with ResNet-50.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(arg: str = "T") -> ConfigDict:
    """The experiment for an encoder, 'SIZE/PATCH' or 'SIZE'."""
    config = common.imagenet()
    config.data.update(
        batch_size=40, train_transform="random_resized_crop(224, scale=(0.2, 1))|flip"
    )
    config.method.name = "colorization"
    config.method.args = common.method_args(
        "colorization", encoder=common.encoder_of(arg, "configs/colorization.py"), dtype="bfloat16"
    )
    config.optimizer.update(b2=0.99, weight_decay=1e-3)
    config.schedule.update(base_lr=3e-5 * 256 / 40, epochs=14.0, warmup_epochs=0.1)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
