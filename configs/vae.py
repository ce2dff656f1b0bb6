"""A variational autoencoder (arXiv 1312.6114) on ImageNet-1k at 64 pixels. The argument is the
encoder, SIZE/PATCH for a ViT or SIZE for a convolutional one.

    mae-jax train --config vae:B/8

No published recipe learns features of ImageNet this way. The optimizer is beta-VAE's for photos of
64 pixels (Higgins et al., ICLR 2017, appendix): Adam, learning rate 1e-4, batch size 64. With
`method.args.beta` over 1 the latent dimensions become more independent, but reconstructions worse.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(arg: str = "B/8") -> ConfigDict:
    """The experiment for an encoder, 'SIZE/PATCH' or 'SIZE'."""
    config = common.imagenet()
    config.data.update(
        batch_size=64,
        train_transform="random_resized_crop(64, scale=(0.2, 1))|flip",
        eval_transform="resize(64)|center_crop(64)",
    )
    config.method.name = "vae"
    config.method.args = common.method_args(
        "vae", encoder=common.encoder_of(arg, "configs/vae.py"), latent=256, dtype="bfloat16"
    )
    config.optimizer.update(b2=0.999, weight_decay=0.0)
    config.schedule.update(base_lr=1e-4 * 256 / 64, epochs=50.0, warmup_epochs=0.1)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
