"""A context encoder (arXiv 1604.07379) on ImageNet-1k: masked pixels are set to zero, and a
convolutional autoencoder predicts them. The argument is the size of the encoder.

    mae-jax train --config context_encoder:T

The recipe is that of `configs/fcmae.py`, for comparison, except for the absolute error (L1) on
masked patches of 16 pixels, Adam, and no skip connections.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, fcmae


def get_config(size: str = "T") -> ConfigDict:
    """The experiment for a ConvNeXt of this size, e.g. 'T'."""
    config = fcmae.get_config()
    config.method.name = "context_encoder"
    config.method.args = common.method_args(
        "context_encoder",
        encoder=common.encoder_of(size, "configs/context_encoder.py"),
        unit=16,
        loss="l1",
        dtype="bfloat16",
    )
    config.optimizer.update(b2=0.999, weight_decay=0.0)
    return config
