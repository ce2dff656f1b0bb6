"""MoCo v3 on ImageNet-1k with the paper's recipe for ViTs (arXiv 2104.02057): AdamW, base learning
rate 1.5e-4, weight decay 0.1, batch size 4096, 300 epochs with 40 of warm-up, BYOL's augmentation.
The argument is the encoder, SIZE/PATCH.

    mae-jax train --config mocov3:S/16 --workdir runs/mocov3_s16

The authors report 73.2% (S/16, with 12 attention heads; 6 here) and 76.7% (B/16) with linear
probing (facebookresearch/moco-v3, CONFIG.md). Here biases and norms have no weight decay. The whole
batch should fit on the devices: with `accumulate`, the negatives are only those of a microbatch.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common
from mae_jax.types import UserError


def get_config(arg: str = "B/16") -> ConfigDict:
    """The experiment for a ViT 'SIZE/PATCH'."""
    encoder = common.encoder_of(arg, "configs/mocov3.py")
    if "/" not in arg:
        raise UserError(f"configs/mocov3.py:{arg}: the recipe is for ViTs, e.g. S/16 or B/16")
    config = common.imagenet()
    config.data.update(
        batch_size=4096,
        train_transform="random_resized_crop(224, scale=(0.08, 1))|flip",
        views=2,
    )
    config.method.name = "mocov3"
    config.method.args = common.method_args("mocov3", encoder=encoder, dtype="bfloat16")
    config.optimizer.update(b2=0.999, weight_decay=0.1)
    config.schedule.update(base_lr=1.5e-4, epochs=300.0, warmup_epochs=40.0)
    config.evals.run = "knn(k=20, limit=100000)"
    return config
