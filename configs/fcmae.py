"""FCMAE on ImageNet-1k: masked autoencoding with a sparse convolutional encoder. The argument is
the size of the encoder.

    mae-jax train --config fcmae:B

The recipe is the paper's (arXiv 2301.00808, appendix A.1): AdamW, base learning rate 1.5e-4, batch
4096, 800 epochs of which 40 warm-up, 60% masked in patches of 32 pixels, normalized targets. Our
decoder is a UNet of transposed convolutions as in SparK (arXiv 2301.03580), theirs a single block.
After 1,600 epochs they report 83.0% (T), 84.9% (B) and 85.8% (L) fine-tuned.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(size: str = "T") -> ConfigDict:
    """The experiment for a size."""
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
