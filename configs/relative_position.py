"""Predicting the relative position of two tiles (arXiv 1505.05192) on ImageNet-1k; the argument is
the encoder, SIZE/PATCH for a ViT or SIZE for a convolutional one.

    mae-jax train --config relative_position:T

Plain SGD with momentum as in the later reproductions with ResNet-50: 70 epochs, batch 512, learning
rate 0.2, which reach 38.8% in linear classification (OpenMixup's and VISSL's tables); the schedule
here is a cosine. The paper's own network is an AlexNet on tiles of 96 pixels.
Weight decay is outside of the momentum here, where its tenfold does what it does inside.
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
