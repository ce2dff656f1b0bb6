"""Compares all self-supervised methods with the same encoder of 64 tokens an image, learning rate
and evaluation, with two seeds each, on two axes.

    mae-jax sweep --config compare_methods --jobs 2
    mae-jax report --sweep runs/compare_methods

'equal images': each method sees 48,000 images. 'equal compute': each method gets the floating-point
operations that supervised training on 48,000 images takes, so that methods with cheap steps see
more images. The argument is the encoder, 'vit' or 'convnext'; `fcmae` is convolutional in both.

Frozen encoders are evaluated by k-NN, plain and on whitened features, and logistic regression with
4,000 labels, and by fine-tuning with 10% of the 12,000 labels. 'supervised' is trained on all
labels instead, and 'scratch' on the 10% only, both with one learning rate for all layers. AdamW has
b2 = 0.95 for pre-training, except for BiGAN with b1 = 0.5 and b2 = 0.999, and b2 = 0.999 with
labels. The contrastive methods use stronger crops.

It takes 65 minutes on two CPU cores: configs/results/compare_methods.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, finetune, scenes
from mae_jax.types import UserError

SEEDS = (0, 1)
EPOCHS = 4.0
"""Of equal images."""
EVALS = "knn(k=20, limit=4000)|knn(k=20, limit=4000, whiten=True)|logistic(limit=4000)"
EVERY = 375
"""Steps between two evaluations: half of the 750 steps of equal images."""
FEW = "share(0.1, seed=0)"
ENCODERS = {
    "vit": "vit(width=96, depth=2, heads=3, patch=4)",
    "convnext": "convnext(widths=(48, 96), depths=(1, 2), stem=4, kernel=3)",
}
PIXELS = "pixels(normalize=False)"
METHODS = {
    "mae": dict(decoder_width=64, decoder_depth=1, decoder_heads=4, target=PIXELS),
    "fcmae": dict(encoder=ENCODERS["convnext"], decoder_width=32, target=PIXELS),
    "simclr": dict(projector=(256, 64), jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0, temperature=0.5),
    "mocov3": dict(projector=(256, 256, 64), predictor=(256, 64), blur=(0.0, 0.0)),
    "relative_position": dict(tile=8, hidden=256),
    "jigsaw": dict(tile=8, hidden=64),
    "rotation": dict(),
    "colorization": dict(),
    "vae": dict(latent=64, decoder_width=48),
    "bigan": dict(latent=64, decoder_width=48, discriminator_width=32, discriminator_lr=0.3),
}
"""Method -> arguments that differ from its defaults, which are those of its paper."""
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
        raise UserError(f"configs/compare_methods.py:{encoder}: choose {', '.join(ENCODERS)}")
    spec, costs, configs = ENCODERS[encoder], GFLOPS[encoder], {}
    budget = EPOCHS * costs["supervised"]
    axes = {
        "equal images": dict.fromkeys(METHODS, EPOCHS),
        "equal compute": {name: budget / costs[name] for name in METHODS},
    }
    for seed in SEEDS:
        cells = {}
        for axis, epochs in axes.items():
            for name in METHODS:
                cells[f"{name}/{axis}"] = without_labels(name, spec, epochs[name])
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
    """Pre-training with one method on the images of `configs/scenes.py`."""
    config = scenes.get_config()
    config.method.name = name
    config.method.args = common.method_args(name, **(dict(encoder=encoder) | METHODS[name]))
    config.method.args.pool = "mean"  # mean of the tokens, for all methods
    config.data.batch_size = 64
    config.schedule.update(base_lr=4e-3, epochs=epochs, warmup_epochs=epochs / 10)
    config.evals.update(every=EVERY, run=EVALS)
    if name in ("simclr", "mocov3"):
        config.data.update(views=2, train_transform="random_resized_crop(32, scale=(0.2, 1))|flip")
    if name == "bigan":  # as in its paper
        config.optimizer.update(b1=0.5, b2=0.999)
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
    """Fine-tuning with 10% of the labels."""
    config = finetune.on_scenes()
    config.data.subset = FEW
    config.method.args.update(encoder=encoder, layer_decay=0.9)
    config.schedule.update(base_lr=4e-3, epochs=15.0, warmup_epochs=1.5)
    return config
