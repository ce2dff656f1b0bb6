"""The ablations of the MAE paper (arXiv 2111.06377, table 1, figures 5 and 7), and rows from later
papers. Each row is the base with the changes that its name states.

    mae-jax sweep --config ablations:scenes
    mae-jax report --sweep runs/ablations_scenes --reported mae_paper
    mae-jax sweep --config ablations:L/16 --list  # ImageNet: pre-training, fine-tuning, probe

For SIZE/PATCH the base is that of the paper's ablations: ViT-L/16, 800 epochs, pixels that are not
normalized, a decoder of 8 blocks of width 512. Each row has three experiments: 'pretrained', and
from it 'finetuned' and 'linear'. The rows of contrastive tuning and of partial fine-tuning start
from the base.

'scenes' is small: 32 x 32 pixels, 64 patches, 120,000 images a row, and frozen features are
evaluated at the end of each run. It leaves out the rows in LEFT_OUT and has one seed of most, three
of the base and of the two best and the two worst rows: 30 runs, measured in
configs/results/ablations_scenes in an hour of two CPU cores. 'scenes,seeds' has three seeds of all
rows, 90 runs.
"""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mae_jax.configs import contrastive_tuning, finetune, linear_probe, mae, partial, scenes
from mae_jax.models import vit
from mae_jax.types import UserError

SEEDS = (0, 1, 2)
BASE = "base"
REPEATED = (BASE, "no crop", "HOG", "epochs 5", "cross, 25% predicted")
"""Rows of 'scenes' with three seeds: the two best and the two worst ones in the first."""
LEFT_OUT = (
    *("loss on all patches", "green noise", "blue noise", "low-pass", "crop of fixed size"),
    *("epochs 20", "fused", "4 class tokens", "PCA", "tuned by contrast"),
)
"""Rows that only 'scenes,seeds' has."""
METHOD = {
    "block 50%": dict(mask="block", mask_ratio=0.5),
    "block 75%": dict(mask="block"),
    "grid 75%": dict(mask="grid"),
    "mask tokens in encoder": dict(mask_tokens_in_encoder=True),
    "pixels, normalized": dict(target="pixels(normalize=True)"),
    "loss on all patches": dict(loss_on="all"),
    "unit 2": dict(mask="random(unit=2)"),
    "green noise": dict(mask="noise(color=green)"),
    "blue noise": dict(mask="noise(color=blue)"),
    "low-pass": dict(target="lowpass(radius=0.18, normalize=False)"),
}
"""Row -> changes of the method's arguments, at both scales."""
VALUES = {
    "scenes": dict(
        ratio=(0.3, 0.5, 0.6, 0.9), depth=(1, 4), width=(32, 128), epochs=(5.0, 20.0), area=0.5
    ),
    "imagenet": dict(
        ratio=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        depth=(1, 2, 4, 12),
        width=(128, 256, 768, 1024),
        epochs=(100.0, 200.0, 400.0, 1600.0),
        area=0.2,
    ),
}
"""Scale -> mask ratios, depths and widths of the decoder, and epochs beside the base's; smallest
area of its crops.
"""
CROPS = {
    "no crop": "resize({0})|center_crop({0})",
    "crop of fixed size": "resize({1})|random_crop({0})|flip",
    "color jitter": "random_resized_crop({0}, scale=({2}, 1))|flip|color_jitter",
}
"""Row -> the transform of training images of side {0}. {1} is 8/7 of it, {2} the smallest area of
the base's crops. The base crops at random sizes and flips.
"""
SCENES = dict(
    encoder="vit(width=96, depth=4, heads=3, patch=4)",
    decoder_width=64,
    decoder_depth=2,
    decoder_heads=4,
    target="pixels(normalize=False)",
    pool="mean",
)
"""Arguments of the method of the small base."""
EVALS = "logistic(limit=4000)|knn(k=20, limit=4000, whiten=True)|knn(k=20, limit=4000)|spectrum"


def get_configs(arg: str = "scenes") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment, for 'scenes', 'scenes,seeds' or 'SIZE/PATCH'."""
    if arg not in ("scenes", "scenes,seeds"):
        return on_imagenet(arg)
    base = small_base()
    rows = {BASE: base, **varied(base, "scenes", side=32, depth=4)}
    wide = SCENES["encoder"][:-1] + ", class_tokens=4)"
    rows["4 class tokens"] = changed(base, dict(encoder=wide, pool="cls_concat"))
    rows["PCA"] = changed(base, dict(target="pca(keep=24)"))  # of 48 values: half of them
    rows["HOG"] = changed(base, dict(target="hog(cell=4)"))
    rows["tuned by contrast"] = tuned = contrastive_tuning.get_config("scenes")
    tuned.method.args.update(encoder=SCENES["encoder"], pool="mean")
    tuned.schedule.update(epochs=4.0, warmup_epochs=0.5)
    tuned.data.batch_size, tuned.evals.run = 64, EVALS
    everything, configs = arg.endswith("seeds"), {}
    for row, config in rows.items():
        if row in LEFT_OUT and not everything:
            continue
        for seed in SEEDS if row in REPEATED or everything else SEEDS[:1]:
            config = copy.deepcopy(config)
            config.seed = seed
            config.evals.baselines = row == BASE
            if row == "tuned by contrast":
                config.init_from.path = f"{BASE}/frozen/{seed}"
            configs[f"{row}/frozen/{seed}"] = config
    return configs


def small_base() -> ConfigDict:
    """The base of 'scenes'."""
    config = scenes.get_config()
    config.method.args.update(SCENES)
    config.data.batch_size = 64
    config.schedule.update(base_lr=4e-3, epochs=10.0, warmup_epochs=1.0)
    config.evals.update(run=EVALS, figures="curves|reconstructions")
    return config


def on_imagenet(arg: str) -> dict[str, ConfigDict]:
    """ROW/COLUMN/0 -> experiment, for 'SIZE/PATCH'."""
    base = mae.get_config(arg)
    if "," in arg:
        raise UserError(f"configs/ablations.py:{arg}: write scenes, scenes,seeds or SIZE/PATCH")
    size, encoder = arg.partition("/")[0], base.method.args.encoder
    base.method.args.target = "pixels(normalize=False)"
    rows = {BASE: base, **varied(base, "imagenet", side=224, depth=vit.SIZES[size]["depth"])}
    rows["PCA"] = changed(base, dict(target="pca(keep=96)"))
    rows["HOG"] = changed(base, dict(target="hog(cell=8)"))
    several = f"{encoder[:-1]}, class_tokens=8)"
    rows["8 class tokens"] = changed(base, dict(encoder=several))
    rows["tuned by contrast"] = contrastive_tuning.get_config(arg)
    rows["tuned by contrast"].init_from.path = f"{BASE}/pretrained/0"
    configs = {}
    for row, config in rows.items():
        configs[f"{row}/pretrained/0"] = config
        for column, task in (("finetuned", finetune), ("linear", linear_probe)):
            config_ = task.get_config(arg)
            config_.method.args.encoder = config.method.args.encoder
            config_.init_from.path = f"{row}/pretrained/0"
            configs[f"{row}/{column}/0"] = config_
    for name, config in partial.get_configs(f"{arg},{BASE}/pretrained/0").items():
        configs[f"{name.partition('/')[0]}/finetuned/0"] = config
    return configs


def varied(base: ConfigDict, scale: str, side: int, depth: int) -> dict[str, ConfigDict]:
    """Row -> experiment, for the rows that both scales have.

    Args:
        base: what they change.
        scale: 'scenes' or 'imagenet'.
        side: of the images, in pixels.
        depth: blocks of the encoder.
    """
    values = VALUES[scale]
    rows = {f"ratio {ratio}": changed(base, dict(mask_ratio=ratio)) for ratio in values["ratio"]}
    rows |= {row: changed(base, changes) for row, changes in METHOD.items()}
    for kind in ("depth", "width"):
        for value in values[kind]:
            rows[f"decoder {kind} {value}"] = changed(base, {f"decoder_{kind}": value})
    for row, transform in CROPS.items():
        rows[row] = copy.deepcopy(base)
        rows[row].data.train_transform = transform.format(side, side * 8 // 7, values["area"])
    for epochs in values["epochs"]:
        rows[f"epochs {epochs:g}"] = row = copy.deepcopy(base)
        row.schedule.epochs = epochs
        row.schedule.warmup_epochs = min(base.schedule.warmup_epochs, epochs / 10)
    blocks = tuple(dict.fromkeys((*(max(1, depth * i // 12) for i in (1, 3, 5, 7, 9)), depth)))
    rows["fused"] = changed(base, dict(fuse=blocks))
    rows["cross, 25% predicted"] = cross = changed(base, dict(decoder="cross", predict_share=1 / 3))
    cross.schedule.base_lr /= 3  # with the predicted share, as its authors
    return rows


def changed(base: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """The base with these arguments of the method."""
    config = copy.deepcopy(base)
    config.method.args.update(changes)
    return config
