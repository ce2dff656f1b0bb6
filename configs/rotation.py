"""Predicting rotations (arXiv 1803.07728) on ImageNet-1k. The argument is the encoder, SIZE/PATCH
for a ViT or SIZE for a convolutional one.

    mae-jax train --config rotation:T

The recipe is the paper's: batch size 192 (each image in all four rotations), 30 epochs, learning
rate 0.01 with momentum 0.9, weight decay 5e-4. Differences: the paper's network is an AlexNet; its
learning rate decays in steps, here along a cosine; weight decay is decoupled from the momentum
here, and so ten times larger for the same effect. OpenMixup reports 47 to 48% linear-probe accuracy
with ResNet-50.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(arg: str = "T") -> ConfigDict:
    """The experiment for an encoder, 'SIZE/PATCH' or 'SIZE'."""
    config = common.imagenet()
    config.data.update(
        batch_size=192, train_transform="random_resized_crop(224, scale=(0.2, 1))|flip"
    )
    config.method.name = "rotation"
    config.method.args = common.method_args(
        "rotation", encoder=common.encoder_of(arg, "configs/rotation.py"), dtype="bfloat16"
    )
    config.optimizer.update(name="sgd", b1=0.9, weight_decay=10 * 5e-4)
    config.schedule.update(base_lr=0.01 * 256 / 192, epochs=30.0, warmup_epochs=1.0)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
