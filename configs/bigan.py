"""BiGAN, a bidirectional GAN (arXiv 1605.09782), on ImageNet-1k at 64 pixels. The argument is the
encoder, SIZE/PATCH for a ViT or SIZE for a convolutional one.

    mae-jax train --config bigan:B/8

The recipe is the paper's: Adam with b1 = 0.5 and b2 = 0.999, learning rate 2e-4, weight decay
2.5e-5, batch size 128, 400 epochs, 200 latent dimensions. Differences: the paper's latent is
uniform, here normal; its encoder is an AlexNet; its learning rate decays exponentially in the
second half, here along a cosine; weight decay is decoupled here, as in AdamW.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(arg: str = "B/8") -> ConfigDict:
    """The experiment for an encoder, 'SIZE/PATCH' or 'SIZE'."""
    config = common.imagenet()
    config.data.update(
        batch_size=128,
        train_transform="random_resized_crop(64, scale=(0.2, 1))|flip",
        eval_transform="resize(64)|center_crop(64)",
    )
    config.method.name = "bigan"
    config.method.args = common.method_args(
        "bigan", encoder=common.encoder_of(arg, "configs/bigan.py"), latent=200
    )
    config.optimizer.update(b1=0.5, b2=0.999, weight_decay=2.5e-5)
    config.schedule.update(base_lr=2e-4 * 256 / 128, epochs=400.0, warmup_epochs=0.1)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
