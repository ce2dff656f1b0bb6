"""Predicting the relative position of two tiles (arXiv 1505.05192) on ImageNet-1k. The argument is
the encoder, SIZE/PATCH for a ViT or SIZE for a convolutional one.

    mae-jax train --config relative_position:T

The recipe is that of later reproductions with ResNet-50: SGD with momentum, 70 epochs, batch size
512, learning rate 0.2; OpenMixup and VISSL report 38.8% linear-probe accuracy. Differences: the
schedule here is a cosine; weight decay is decoupled from the momentum here, and so ten times larger
for the same effect. The paper's own network is an AlexNet on tiles of 96 pixels.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(arg: str = "T") -> ConfigDict:
    """The experiment for an encoder, 'SIZE/PATCH' or 'SIZE'."""
    config = common.imagenet()
    config.data.update(
        batch_size=512, train_transform="random_resized_crop(255, scale=(0.2, 1))|flip"
    )
    config.method.name = "relative_position"
    config.method.args = common.method_args(
        "relative_position",
        encoder=common.encoder_of(arg, "configs/relative_position.py"),
        dtype="bfloat16",
    )
    config.optimizer.update(name="sgd", b1=0.9, weight_decay=10 * 1e-4)
    config.schedule.update(base_lr=0.1, epochs=70.0, warmup_epochs=5.0)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
