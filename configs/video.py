"""Masked autoencoders on clips: the recipes of VideoMAE and MAE_ST, and a small one that needs no
files. The argument is NAME/SIZE/PATCH, or words of the small one.

    mae-jax train --config video
    mae-jax train --config video:direction,tube,flat
    mae-jax train --config video:inflated
    mae-jax train --config video:videomae/B/16 --workdir runs/videomae
    mae-jax train --config video:mae_st/L/16 --workdir runs/mae_st

`videomae` (Tong et al. 2022, arXiv 2203.12602; the scripts of its repository for Kinetics-400): 16
frames at a stride of 4, patches of 2 frames, tubes of which 90% are masked, pixels normalized per
channel, a decoder of half the width and heads of 64, 4 blocks (12 for L), AdamW with betas 0.9 and
0.95, 1.5e-4 and at the end 1e-5 per 256 clips, 1600 epochs with 40 of warm-up, batches of 1024 (S),
2048 (B) or 512 (L). 81.5% (B) and 85.2% (L) top-1 after fine-tuning, in the paper.

`mae_st` (Feichtenhofer et al. 2022, arXiv 2205.09113; PRETRAIN.md of its repository): random masks
of 90%, learned positions of space and time, one frame of each patch predicted, normalized, a
decoder of 4 blocks of width 512, base learning rate 1.6e-3, gradients clipped at 0.02, batches of
512, 100 passes of four clips each from a decoded video, 5 of warm-up. 84.4% (L, 800 epochs).

MAE_ST crops a share of 0.5 to 1 of the frames, of an aspect of 3:4 to 4:3, and resizes it to 224
pixels, all frames of a clip alike; here with antialiasing, there without. VideoMAE crops at one of
four scales and thirteen places, and its code does not flip.

Without a name, `fashion_clips`: 8 frames of 32 x 32 pixels, 64 patches of 2 x 8 x 8, in minutes on
two CPU cores. Words: `direction` for the label, options of VARIANTS, and `inflated`, an encoder
that starts from the one of images in runs/scenes, trained by `configs/scenes.py`.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common
from mae_jax.models import vit
from mae_jax.types import UserError

BATCHES = {"S": 1024, "B": 2048, "L": 512}
"""VideoMAE's, by the size of its encoder."""
ENCODER = "vit(width=96, depth=4, heads=3, patch=(2, 8, 8), class_tokens=0"
VARIANTS = {
    "tube": dict(mask="tube"),
    "blocks": dict(mask="tube('block(blocks=8)')"),
    "time": dict(mask="time", mask_ratio=0.5),
    "flat": dict(
        encoder=f"{ENCODER}, positions=flat)", decoder_positions="flat", decoder_embed_bias=False
    ),
    "separable": dict(encoder=f"{ENCODER}, positions=separable)", decoder_positions="separable"),
    "channels": dict(target="pixels(normalize=channels)"),
    "frames": dict(target="pixels(normalize=True, frames=1)"),
    "inflated": dict(
        encoder="vit(width=128, depth=4, heads=4, patch=(2, 8, 8), positions=separable)",
        decoder_positions="separable",
    ),
}
"""Word -> changed arguments of the method."""


def get_config(arg: str = "") -> ConfigDict:
    """The experiment for NAME/SIZE/PATCH, or for words."""
    name, *shape = arg.split("/")
    if not shape:
        return garments(arg)
    size, patch = shape if len(shape) == 2 else ("", "")
    sizes = BATCHES if name == "videomae" else ("B", "L", "H")
    if name not in ("videomae", "mae_st") or size not in sizes or not patch.isdigit():
        raise UserError(
            f"configs/video.py:{arg}: write videomae/SIZE/PATCH with S, B or L, mae_st/SIZE/PATCH "
            f"with B, L or H, or words of {', '.join(['direction', *VARIANTS])}"
        )
    return videomae(size, int(patch)) if name == "videomae" else mae_st(size, int(patch))


def clips() -> ConfigDict:
    """`base` for videos of Kinetics-400."""
    config = common.base()
    config.data.update(
        train="frames('data/kinetics400/train', frames=0)",
        train_transform="random_clip(16, stride=4)|multi_scale_crop(224)",
        eval_transform="center_clip(16, stride=4)|center_crop((16, 224, 224))",
    )
    config.checkpoint.every = 2500
    config.evals.figures = "curves|film"
    return config


def videomae(size: str, patch: int) -> ConfigDict:
    """VideoMAE's recipe."""
    config, width = clips(), vit.SIZES[size]["width"] // 2
    tubes = (224 // patch) ** 2
    config.method.args = common.method_args(
        "mae",
        encoder=f"vit({size}, patch=(2, {patch}, {patch}), class_tokens=0, positions=flat)",
        decoder_width=width,
        decoder_depth=12 if size == "L" else 4,
        decoder_heads=width // 64,
        decoder_positions="flat",
        decoder_embed_bias=False,
        mask="tube",
        mask_ratio=int(0.9 * tubes) / tubes,  # 176 of 196, as its code rounds
        target="pixels(normalize=channels)",
        pool="mean",
        dtype="bfloat16",
    )
    config.data.batch_size = BATCHES[size]
    scale = config.data.batch_size / 256
    config.schedule.update(base_lr=1.5e-4, min_lr=1e-5 * scale, epochs=1600.0, warmup_epochs=40.0)
    return config


def mae_st(size: str, patch: int) -> ConfigDict:
    """MAE_ST's recipe."""
    config = clips()
    config.method.args = common.method_args(
        "mae",
        encoder=f"vit({size}, patch=(2, {patch}, {patch}), positions=separable)",
        decoder_depth=4,
        decoder_positions="separable",
        decoder_class_tokens=True,
        mask_ratio=0.9,
        target="pixels(normalize=True, frames=1)",
        mean=(0.45,),
        std=(0.225,),
        dtype="bfloat16",
    )
    config.data.update(
        batch_size=512,
        repeats=4,
        train_transform="random_clip(16, stride=4)|random_resized_crop(224, scale=(0.5, 1.0), "
        "kernel=bilinear)|flip",
    )
    config.optimizer.clip = 0.02
    config.schedule.update(base_lr=1.6e-3, epochs=400.0, warmup_epochs=20.0)  # of single clips
    return config


def garments(arg: str) -> ConfigDict:
    """The small experiment, with words."""
    words = arg.split(",") if arg else []
    if unknown := [word for word in words if word not in ("direction", *VARIANTS)]:
        known = ", ".join(["direction", *VARIANTS])
        raise UserError(f"configs/video.py:{arg}: {unknown[0]!r} is none of {known}")
    config, label = common.base(), "direction" if "direction" in words else "class"
    config.data.update(
        train=f"fashion_clips(split=train, num_examples=12000, label={label!r})",
        test=f"fashion_clips(split=test, num_examples=1000, label={label!r})",
        batch_size=64,
    )
    config.method.args = common.method_args(
        "mae",
        encoder=f"{ENCODER})",
        decoder_width=96,
        decoder_depth=1,
        decoder_heads=3,
        mask_ratio=0.75,
        pool="mean",
        mean=(0.45,),
        std=(0.25,),
    )
    for word in words:
        config.method.args.update(VARIANTS.get(word, {}))
    if "inflated" in words:
        config.init_from.update(path="runs/scenes", inflate="mean")
    config.schedule.update(base_lr=4e-3, epochs=10.0, warmup_epochs=1.0)
    config.checkpoint.every = 500
    config.log.every = 50
    config.evals.update(run="knn(k=20)|logistic", figures="curves|film")
    return config
