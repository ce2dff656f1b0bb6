"""A vector-quantized autoencoder (VQ-VAE, arXiv 1711.00937), the tokenizer of the target `vq`: on
ImageNet-1k at 224 pixels, with a code for each patch of 16 pixels, or on `fashion_scenes`.

    mae-jax train --config vqvae --workdir runs/vqvae
    mae-jax train --config vqvae:scenes --workdir runs/vqvae

The first has the optimizer of the paper's section 4.1: Adam, learning rate 2e-4, 250,000 steps of
128 images. `scenes:vq` starts from the second.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, scenes
from mae_jax.types import UserError


def get_config(arg: str = "imagenet") -> ConfigDict:
    """The experiment on 'imagenet' or on 'scenes'."""
    if arg not in ("imagenet", "scenes"):
        raise UserError(f"configs/vqvae.py:{arg}: write imagenet or scenes after the colon")
    if arg == "scenes":
        config = scenes.get_config()
        config.method.name = "vqvae"
        config.method.args = common.method_args("vqvae", **scenes.TOKENIZER)
        config.schedule.update(epochs=20.0, warmup_epochs=1.0)
        return config
    config = common.imagenet()
    config.data.update(
        batch_size=128, train_transform="random_resized_crop(224, scale=(0.2, 1))|flip"
    )
    config.method.name = "vqvae"
    config.method.args = common.method_args("vqvae", dtype="bfloat16")
    config.optimizer.update(b2=0.999, weight_decay=0.0)
    config.schedule.update(base_lr=2e-4 * 256 / 128, epochs=25.0, warmup_epochs=0.1)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
