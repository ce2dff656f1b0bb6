"""Solving jigsaw puzzles (arXiv 1603.09246) on ImageNet-1k. The argument is the encoder, SIZE/PATCH
for a ViT or SIZE for a convolutional one.

    mae-jax train --config jigsaw:T

The recipe is the paper's: crops of 255 pixels split into 3 x 3 cells of 85, tiles of 64 in them,
1,000 permutations, batch size 256, 350,000 steps (70 epochs), learning rate 0.01 with momentum.
Differences: the paper's network is an AlexNet; its learning rate decays in steps, here along a
cosine; weight decay is decoupled from the momentum here, and so ten times larger for the same
effect. VISSL reports 48.6% linear-probe accuracy with ResNet-50.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common


def get_config(arg: str = "T") -> ConfigDict:
    """The experiment for an encoder, 'SIZE/PATCH' or 'SIZE'."""
    config = common.imagenet()
    config.data.update(
        batch_size=256, train_transform="random_resized_crop(255, scale=(0.2, 1))|flip"
    )
    config.method.name = "jigsaw"
    config.method.args = common.method_args(
        "jigsaw",
        permutations=1000,
        encoder=common.encoder_of(arg, "configs/jigsaw.py"),
        dtype="bfloat16",
    )
    config.optimizer.update(name="sgd", b1=0.9, weight_decay=10 * 5e-4)
    config.schedule.update(base_lr=0.01, epochs=70.0, warmup_epochs=1.0)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
