"""FCMAE on ImageNet-1k: masked autoencoding with a sparse convolutional encoder. The argument is
the size of the encoder.

    mae-jax train --config fcmae:B

The recipe is the paper's (arXiv 2301.00808, appendix A.1): AdamW, base learning rate 1.5e-4, batch
size 4096, 800 epochs with 40 of warm-up, 60% of the patches of 32 pixels masked, normalized
targets. The decoder is a UNet of transposed convolutions as in SparK (arXiv 2301.03580), the
paper's a single block. The paper reports 83.0% (T), 84.9% (B) and 85.8% (L) fine-tuned, after 1,600
epochs.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(size: str = "T") -> ConfigDict:
    """The experiment for a ConvNeXt of this size, e.g. 'T'."""
    config = common.imagenet()
    config.data.update(
        batch_size=4096, train_transform="random_resized_crop(224, scale=(0.2, 1))|flip"
    )
    config.method.name = "fcmae"
    config.method.args = common.method_args(
        "fcmae", encoder=common.encoder_of(size, "configs/fcmae.py"), dtype="bfloat16"
    )
    config.evals.run = "knn(k=20, limit=100000)"
    return config
