"""Linear probing of a pre-trained encoder. The argument is SIZE/PATCH for a ViT, SIZE for a
convolutional encoder, or 'scenes'.

    mae-jax train --config linear_probe:B/16 --config.init_from.path=runs/mae_b16
    mae-jax train --config linear_probe:scenes --config.init_from.path=runs/scenes

The recipe is table 10 of arXiv 2111.06377, on the class token, with LARS and without weight decay;
the paper reports 68.0% (B), 75.8% (L) and 76.6% (H/14). Five classifiers with learning rates around
its 0.1 are trained on the same features; the one that is best on 2% of the training images, held
out, is reported. The BatchNorm in front of them uses the statistics of the global batch (the
authors' code: of each device's part), or with `accumulate` of each microbatch.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, scenes

LR_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Learning rates of the classifiers, as factors of the schedule's."""


def get_config(arg: str = "B/16") -> ConfigDict:
    """The experiment for 'SIZE/PATCH', 'SIZE' of a convolutional encoder, or 'scenes'."""
    if arg == "scenes":
        return on_scenes()
    encoder = common.encoder_of(arg, "configs/linear_probe.py")
    config = common.imagenet()
    config.data.update(
        batch_size=16384,
        train_transform="random_resized_crop(224, scale=(0.08, 1))|flip",
        held_out=0.02,
    )
    config.method.name = "tasks.linear_probe"
    config.method.args = common.method_args(
        "tasks.linear_probe", lr_factors=LR_FACTORS, encoder=encoder, dtype="bfloat16"
    )
    config.optimizer.update(name="lars", b1=0.9, weight_decay=0.0)
    config.schedule.update(base_lr=0.1, epochs=90.0, warmup_epochs=10.0)
    config.evals.run = "probe"
    return config


def on_scenes() -> ConfigDict:
    """Linear probing on `fashion_scenes`, with AdamW."""
    config = scenes.get_config()
    config.data.update(batch_size=64, held_out=0.1)
    config.method.name = "tasks.linear_probe"
    config.method.args = common.method_args(
        "tasks.linear_probe", lr_factors=LR_FACTORS, encoder=scenes.ENCODER, classes=10, pool="mean"
    )
    config.optimizer.update(b2=0.999, weight_decay=0.0)
    config.schedule.update(base_lr=5e-2, epochs=6.0, warmup_epochs=0.5)
    config.log.every = 10
    config.evals.update(every=0, run="probe")
    return config
