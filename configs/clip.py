"""CLIP with masked images (FLIP, Li et al. 2022, arXiv 2212.00794). The argument is SIZE/PATCH for
a ViT, 'scenes', or one of these with ',siglip' for the loss of SigLIP (arXiv 2303.15343).

    mae-jax train --config clip:B/16 --workdir runs/clip_b16
    mae-jax train --config clip:B/16,siglip --workdir runs/siglip_b16
    mae-jax train --config clip:scenes
    mae-jax train --config clip:scenes --config.method.args.mask_ratio=0.0 --workdir runs/clip_whole

The numbers are those of the authors' code (facebookresearch/flip, configs/default.py and
cfg_flip_base.py): half of the patches masked, 32 tokens of BERT's tokenizer, a text tower of 12
blocks of width 512 whose first token is the feature, AdamW with base learning rate 4e-6, weight
decay 0.2, crops of 0.5 to 1 and flips. The authors train on LAION-400M with batches of 32,768 to
65,536; here are 16,384 images of CC12M, for 32 epochs of which one warm-up. The data are shards of
images and captions, see docs/text.md. If the tokenizer is another one, set `vocabulary` to its
size.

The whole batch should fit on the devices: with `accumulate`, the negatives are only those of a
microbatch.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, m3ae, scenes
from mae_jax.types import UserError

PROMPTS = "('a photo of a {}', 'a picture of a {}', 'an image of a {}')"


def get_config(arg: str = "B/16") -> ConfigDict:
    """The experiment for 'SIZE/PATCH' or 'scenes', optionally followed by ',siglip'."""
    name, _, loss = arg.partition(",")
    if loss not in ("", "siglip"):
        raise UserError(f"configs/clip.py:{arg}: {loss!r} is not siglip")
    config = on_scenes() if name == "scenes" else on_shards(name)
    if loss:
        config.method.args.loss = "sigmoid"
    return config


def on_shards(arg: str) -> ConfigDict:
    """FLIP of CC12M-like shards."""
    config = common.base()
    config.data.update(
        train=m3ae.shards("train", length=32),
        test=m3ae.shards("val", length=32),
        fields=m3ae.FIELDS[1:],
        batch_size=16384,
        train_transform="random_resized_crop(224, scale=(0.5, 1))|flip",
        eval_transform="resize(256)|center_crop(224)",
    )
    config.method.name = "clip"
    config.method.args = common.method_args(
        "clip",
        vocabulary=30522,
        encoder=common.encoder_of(arg, "configs/clip.py"),
        text="text_tower(width=512, depth=12, heads=8, pool=first)",
        dtype="bfloat16",
    )
    config.optimizer.weight_decay = 0.2
    config.schedule.update(base_lr=4e-6, epochs=32.0, warmup_epochs=1.0)
    config.evals.run = "retrieval(limit=5000)"
    config.evals.figures = "curves|retrieved"
    return config


def on_scenes() -> ConfigDict:
    """CLIP of scenes with captions, with the encoder and schedule of `scenes`."""
    config = m3ae.with_captions()
    config.method.name = "clip"
    config.method.args = common.method_args(
        "clip",
        vocabulary=m3ae.WORDS,
        length=m3ae.LENGTH,
        encoder=scenes.ENCODER,
        text="text_tower(width=128, depth=2, heads=4)",
        embedding=64,
        pool="mean",
    )
    config.evals.run += f"|retrieval(limit=2000)|zero_shot(prompts={PROMPTS})"
    config.evals.figures = "curves|retrieved"
    return config
