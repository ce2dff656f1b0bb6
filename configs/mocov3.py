"""MoCo v3 on ImageNet-1k with the recipe of the paper for ViTs (arXiv 2104.02057): AdamW, base
learning rate 1.5e-4, weight decay 0.1, batch 4096, 300 epochs of which 40 warm-up, BYOL's
augmentation; the argument is the encoder, SIZE/PATCH.

    mae-jax train --config mocov3:S/16 --workdir runs/mocov3_s16

The authors' models reach 73.2% (S/16, with 12 heads where ours has 6) and 76.7% (B/16) in linear
classification (facebookresearch/moco-v3, CONFIG.md). Ours do not decay biases and norms. A batch
must fit on the devices at once: with `accumulate`, views are told apart within its parts.
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
