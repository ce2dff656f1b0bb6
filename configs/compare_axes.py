"""Compares the methods of `compare_methods` on two axes, with 64 tokens an image and two seeds.

    mae-jax sweep --config compare_axes --jobs 2
    mae-jax report --sweep runs/compare_axes

The argument is the encoder, 'vit' or 'convnext'; `fcmae` is convolutional in both. 'equal images':
each method sees 48,000 images. 'equal compute': each method gets the floating-point operations that
supervised training on 48,000 images takes, so that methods with cheap steps see more images.

Frozen encoders are evaluated by k-NN, plain and on whitened features, and logistic regression with
4,000 labels, and by fine-tuning with 10% of the 12,000 labels. 'supervised' is trained on all
labels instead, and 'scratch' on the 10% only, both with one learning rate for all layers.
"""

from ml_collections import ConfigDict

from mae_jax.configs import compare_methods
from mae_jax.configs.compare_methods import METHODS
from mae_jax.types import UserError

SEEDS = (0, 1)
EPOCHS = 4.0
"""Of equal images."""
EVALS = "knn(k=20, limit=4000)|knn(k=20, limit=4000, whiten=True)|logistic(limit=4000)"
EVERY = 375
"""Steps between two evaluations, half of those of equal images."""
ENCODERS = {
    "vit": "vit(width=96, depth=2, heads=3, patch=4)",
    "convnext": "convnext(widths=(48, 96), depths=(1, 2), stem=4, kernel=3)",
}
GFLOPS = {
    "vit": dict(
        mae=0.044,
        fcmae=0.0584,
        simclr=0.1995,
        mocov3=0.2678,
        relative_position=0.0142,
        jigsaw=0.0648,
        rotation=0.3964,
        colorization=0.1092,
        vae=0.1432,
        bigan=0.2171,
        supervised=0.099,
    ),
    "convnext": dict(
        mae=0.0319,
        fcmae=0.0584,
        simclr=0.0542,
        mocov3=0.0757,
        relative_position=0.0037,
        jigsaw=0.0175,
        rotation=0.1058,
        colorization=0.0369,
        vae=0.0706,
        bigan=0.1445,
        supervised=0.0265,
    ),
}
"""Encoder -> method -> 10^9 operations of a training step per image, as costs.json has them."""


def get_configs(encoder: str = "vit") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    if encoder not in ENCODERS:
        raise UserError(f"configs/compare_axes.py:{encoder}: choose {', '.join(ENCODERS)}")
    spec, costs, configs = ENCODERS[encoder], GFLOPS[encoder], {}
    axes = {
        "equal images": lambda name: EPOCHS,
        "equal compute": lambda name: EPOCHS * costs["supervised"] / costs[name],
    }
    for seed in SEEDS:
        cells = {}
        for axis, epochs in axes.items():
            for name in METHODS:
                cells[f"{name}/{axis}"] = without_labels(name, spec, epochs(name))
        cells["supervised/equal images"] = supervised(spec)
        for axis in axes:
            for name, arguments in METHODS.items():
                cells[f"{name}/{axis}, 10%"] = tuned = few_labels(arguments.get("encoder", spec))
                tuned.init_from.path = f"{name}/{axis}/{seed}"
        cells["scratch/equal images, 10%"] = from_scratch(spec)
        for name, config in cells.items():
            config.seed = seed
            config.evals.baselines = name.startswith("mae/")
            configs[f"{name}/{seed}"] = config
    return configs


def without_labels(name: str, encoder: str, epochs: float) -> ConfigDict:
    """Pre-training with one method, as in `compare_methods`."""
    config = compare_methods.without_labels(name, encoder)
    config.schedule.update(epochs=epochs, warmup_epochs=epochs / 10)
    config.evals.update(every=EVERY, run=EVALS)
    return config


def supervised(encoder: str) -> ConfigDict:
    """Supervised training on all labels, with the schedule of pre-training."""
    config = from_scratch(encoder)
    config.data.subset = ""
    config.schedule = without_labels("mae", encoder, EPOCHS).schedule
    config.evals.update(every=EVERY, run=EVALS)
    return config


def from_scratch(encoder: str) -> ConfigDict:
    """The same from scratch: one learning rate for all layers."""
    config = few_labels(encoder)
    config.method.args.layer_decay = 1.0
    return config


def few_labels(encoder: str) -> ConfigDict:
    """Fine-tuning with 10% of the labels: `compare_methods` with other rates."""
    config = compare_methods.few_labels(encoder)
    config.method.args.layer_decay = 0.9
    config.schedule.base_lr = 4e-3
    return config
