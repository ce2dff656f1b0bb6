"""SimCLR (arXiv 2002.05709) on ImageNet-1k. The argument is the encoder, SIZE for a convolutional
one or SIZE/PATCH for a ViT.

    mae-jax train --config simclr:T --workdir runs/simclr_t

The recipe is that of the paper and its code: LARS, base learning rate 0.3, weight decay 1e-6, batch
size 4096, 100 epochs with 10 of warm-up, temperature 0.1, color jitter of strength 1, blur of every
second view. The authors report 64.5% with linear probing for ResNet-50 (google-research/simclr,
README), and 69.3% after 1000 epochs; T costs about as much, but has LayerNorm instead of BatchNorm.
The paper has no ViTs: for these, optimizer and schedule are those of `configs/mocov3.py`. The whole
batch should fit on the devices: with `accumulate`, the negatives are only those of a microbatch.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, mocov3


def get_config(arg: str = "T") -> ConfigDict:
    """The experiment for an encoder, 'SIZE' or 'SIZE/PATCH'."""
    encoder = common.encoder_of(arg, "configs/simclr.py")
    config = common.imagenet()
    config.data.update(
        batch_size=4096,
        train_transform="random_resized_crop(224, scale=(0.08, 1))|flip",
        views=2,
    )
    config.method.name = "simclr"
    config.method.args = common.method_args("simclr", encoder=encoder, dtype="bfloat16")
    if "/" in arg:
        recipe = mocov3.get_config(arg)
        config.optimizer, config.schedule = recipe.optimizer, recipe.schedule
    else:
        config.optimizer.update(name="lars", b1=0.9, weight_decay=1e-6)
        config.schedule.update(base_lr=0.3, epochs=100.0, warmup_epochs=10.0)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
