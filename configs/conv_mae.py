"""Masked autoencoding with a convolutional encoder and decoder on ImageNet-1k; the argument is the
size of the encoder, with ',original' behind it for the plain reading of the idea.

    mae-jax train --config conv_mae:B
    mae-jax train --config conv_mae:T,original

The recipe is FCMAE's (arXiv 2301.00808, appendix A.1): AdamW, base learning rate 1.5e-4, batch
4096, 800 epochs of which 40 warm-up, 60% hidden in units of 32 pixels, normalized targets. Our
decoder is a UNet of transposed convolutions as in SparK (arXiv 2301.03580), theirs a single block.
After 1,600 epochs they report 83.0% (T), 84.9% (B) and 85.8% (L) fine-tuned.

'original' multiplies the mask into the image, and a plain auto-encoder fills the holes: absolute
error on the hidden pixels, Adam, no skips.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common
from mae_jax.types import UserError


def get_config(arg: str = "T") -> ConfigDict:
    """The experiment for 'SIZE' or 'SIZE,original'."""
    size, _, kind = arg.partition(",")
    if kind not in ("", "original"):
        raise UserError(f"configs/conv_mae.py:{arg}: write SIZE, e.g. T, or SIZE,original")
    config = common.imagenet()
    config.data.update(
        batch_size=4096, train_transform="random_resized_crop(224, scale=(0.2, 1))|flip"
    )
    config.method.name = "conv_mae"
    config.method.args = common.method_args(
        "conv_mae", encoder=common.encoder_of(size, "configs/conv_mae.py"), dtype="bfloat16"
    )
    if kind == "original":
        config.method.args.update(
            masked="input", skips=False, unit=16, loss="l1", target="pixels(normalize=False)"
        )
        config.optimizer.update(b2=0.999, weight_decay=0.0)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
