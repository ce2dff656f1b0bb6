"""Hard patches mining (HPM, arXiv 2304.05919) on ImageNet-1k, or on 'scenes'. The argument is the
encoder, SIZE/PATCH for a ViT.

    mae-jax train --config hpm:B/16 --workdir runs/hpm_b16
    mae-jax train --config hpm:scenes --workdir runs/hpm

The recipe for ImageNet is the authors' (Haochen-Wang409/HPM, PRETRAIN.md): AdamW, base learning
rate 1.5e-4, batch size 4096, 200 epochs with 40 of warm-up, only crops and flips, plain pixels as
targets. They report 83.0% fine-tuned for B/16 and 82.2% for their MAE. 'scenes' has the images, the
networks and the schedule of configs/scenes.py; it has fewer steps, so the momentum is lower.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, scenes

SHARED = ("encoder", "decoder_width", "decoder_depth", "decoder_heads", "target", "pool")
"""Arguments that are equal in configs/scenes.py."""


def get_config(arg: str = "B/16") -> ConfigDict:
    """The experiment for an encoder 'SIZE/PATCH', or for 'scenes'."""
    if arg == "scenes":
        config = scenes.get_config()
        args = {name: config.method.args[name] for name in SHARED}
        args |= dict(predictor_depth=1, momentum=(0.99, 0.999))
    else:
        config = common.imagenet()
        config.data.update(
            batch_size=4096, train_transform="random_resized_crop(224, scale=(0.2, 1))|flip"
        )
        config.schedule.epochs = 200.0
        config.evals.run = "knn(k=20, limit=100000)"
        encoder = common.encoder_of(arg, "configs/hpm.py")
        args = dict(encoder=encoder, target="pixels(normalize=False)", dtype="bfloat16")
    config.method.name = "hpm"
    config.method.args = common.method_args("hpm", **args)
    return config
