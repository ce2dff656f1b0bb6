"""What pre-training is worth with few labels outside of photographs: volumes, clips and images of
eight spectral bands. Each is a masked autoencoder, and fine-tuning from it beside the same network
from scratch, two seeds. The argument is one of the three.

    mae-jax sweep --config domains:volumes --jobs 2
    mae-jax sweep --config domains:clips --jobs 2
    mae-jax sweep --config domains:multispectral --jobs 2
    mae-jax report --sweep runs/domains_volumes

Examples are generated, and need no files. Steps, learning rates and augmentations of fine-tuning
are the same with and without pre-training; from scratch there is no layer decay. Pre-training sees
all examples without labels, fine-tuning a share of them with labels.
"""

import copy
from collections.abc import Callable

from ml_collections import ConfigDict

from mae_jax.configs import common, multispectral, segment_volumes, video, volumes
from mae_jax.spec import check_choice

SEEDS = (0, 1)


def get_configs(arg: str = "volumes") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    check_choice("configs/domains.py", arg, DOMAINS)
    start, tasks = DOMAINS[arg]
    configs = {}
    for seed in SEEDS:
        cells = {"mae/frozen": start()}
        for column, make in tasks.items():
            cells[f"mae/{column}"] = tuned = make()
            cells[f"scratch/{column}"] = scratch = copy.deepcopy(tuned)
            tuned.init_from.path = f"mae/frozen/{seed}"
            scratch.method.args.layer_decay = 1.0
        for name, config in cells.items():
            config.seed = seed
            if not name.endswith("/frozen"):
                config.data.subset = config.data.subset.replace(")", f", seed={seed})")
            configs[f"{name}/{seed}"] = config
    return configs


def classifier(start: ConfigDict, classes: int, labeled: str, **schedule) -> ConfigDict:
    """Fine-tuning of the encoder of an experiment for classes, with a share of the labels."""
    config = copy.deepcopy(start)
    args = start.method.args
    config.method.name = "tasks.finetune"
    config.method.args = common.method_args(
        "tasks.finetune",
        encoder=args.encoder,
        classes=classes,
        drop_path=0.0,
        mixup=0.0,
        cutmix=0.0,
        mean=args.mean,
        std=args.std,
    )
    config.evals.update(run="classify", figures="curves|confusion")
    return few(config, labeled, **schedule)


def few(config: ConfigDict, labeled: str, **schedule) -> ConfigDict:
    """Batches of 16 with a share of the labels; the learning rate is 1e-3."""
    config.data.update(batch_size=16, subset=labeled)
    config.method.args.layer_decay = 0.9
    config.optimizer.b2 = 0.999
    config.schedule.update(base_lr=1.6e-2, **schedule)
    config.log.every = 10
    return config


def segmented_volumes() -> ConfigDict:
    """The texture of each voxel of ellipsoids."""
    config = few(segment_volumes.get_config(), "share(0.1)", epochs=40.0, warmup_epochs=4.0)
    config.evals.run = "volume_segmentation(crop=32, limit=200)"
    return config


def counted_volumes() -> ConfigDict:
    """Volumes with the number of their ellipsoids as label."""
    config = volumes.get_config()
    for split in ("train", "test"):
        config.data[split] = config.data[split].replace(")", ", label=objects)")
    return config


def classified_volumes() -> ConfigDict:
    """The number of ellipsoids."""
    return classifier(counted_volumes(), 4, "share(0.05)", epochs=80.0, warmup_epochs=8.0)


def classified_clips(label: str, classes: int, share: float) -> ConfigDict:
    """The garment of a clip, or where it moves, in 1,125 steps with a share of the labels."""
    return classifier(
        video.get_config("direction" if label == "direction" else ""),
        classes,
        f"share({share})",
        epochs=1.5 / share,
        warmup_epochs=0.15 / share,
    )


def segmented_fields() -> ConfigDict:
    """The land cover of each pixel."""
    start = multispectral.get_config()
    config = copy.deepcopy(start)
    config.method.name = "tasks.segment"
    config.method.args = common.method_args(
        "tasks.segment",
        encoder=start.method.args.encoder,
        classes=5,
        crop=32,
        head="linear",
        drop_path=0.0,
        mean=start.method.args.mean,
        std=start.method.args.std,
    )
    config.data.fields = ("segmentation",)
    config.data.train_transform = "class_crop(32)|flip"
    config.evals.update(run="segmentation(size=32)", figures="curves|segmentation(count=8)")
    return few(config, "share(0.01)", epochs=60.0, warmup_epochs=6.0)


def classified_fields() -> ConfigDict:
    """The land cover of which most is visible."""
    return classifier(multispectral.get_config(), 5, "share(0.02)", epochs=60.0, warmup_epochs=6.0)


def probed(config: ConfigDict) -> ConfigDict:
    """Pre-training, of which the frozen encoder is evaluated with 2,000 labels."""
    config.evals.run = "knn(k=20, limit=2000)|logistic(limit=2000)"
    return config


Make = Callable[[], ConfigDict]
DOMAINS: dict[str, tuple[Make, dict[str, Make]]] = {
    "volumes": (
        lambda: probed(counted_volumes()),
        {"segmentation, 10%": segmented_volumes, "objects, 5%": classified_volumes},
    ),
    "clips": (
        lambda: probed(video.get_config()),
        {
            "garments, 5%": lambda: classified_clips("class", 10, 0.05),
            "directions, 1%": lambda: classified_clips("direction", 4, 0.01),
        },
    ),
    "multispectral": (
        lambda: probed(multispectral.get_config()),
        {"segmentation, 1%": segmented_fields, "classes, 2%": classified_fields},
    ),
}
"""Domain -> pre-training, and column -> fine-tuning."""
