"""Compares all self-supervised methods with the same encoder, images, number of examples seen,
learning rate and evaluation, with two seeds each.

    mae-jax sweep --config compare_methods
    mae-jax report --sweep runs/compare_methods

The argument is the encoder, 'vit' or 'convnext'; `fcmae` is convolutional in both. Frozen encoders
are evaluated by k-NN and logistic regression with 4,000 labels, and by fine-tuning with 10% of the
12,000 labels. 'supervised' is trained on all labels instead, and 'scratch' on the 10% only, both
with one learning rate for all layers. AdamW has b2 = 0.95 for pre-training, except for BiGAN with
b1 = 0.5 and b2 = 0.999, and b2 = 0.999 with labels. The contrastive methods use stronger crops.

It takes an hour and a half on two shared CPU cores: configs/results/compare_methods.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, finetune, scenes
from mae_jax.types import UserError

SEEDS = (0, 1)
EPOCHS = 7.0
EVERY = 440  # steps of the 1313 of a run
EVALS = "knn(k=20, limit=4000)|logistic(limit=4000)"
FEW = "share(0.1, seed=0)"
ENCODERS = {
    "vit": "vit(width=96, depth=2, heads=3, patch=8)",
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


def get_configs(encoder: str = "vit") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    if encoder not in ENCODERS:
        raise UserError(f"configs/compare_methods.py:{encoder}: choose {', '.join(ENCODERS)}")
    spec, configs = ENCODERS[encoder], {}
    for seed in SEEDS:
        cells = {}
        for name in METHODS:
            cells[f"{name}/frozen"] = without_labels(name, spec)
            tuned = cells[f"{name}/10% of labels"] = few_labels(METHODS[name].get("encoder", spec))
            tuned.init_from.path = f"{name}/frozen/{seed}"
        cells["supervised/frozen"] = supervised(spec)
        cells["scratch/10% of labels"] = from_scratch(spec)
        for name, config in cells.items():
            config.seed = seed
            configs[f"{name}/{seed}"] = config
    return configs


def without_labels(name: str, encoder: str) -> ConfigDict:
    """Pre-training with one method on the images of `configs/scenes.py`."""
    config = scenes.get_config()
    config.method.name = name
    config.method.args = common.method_args(name, **(dict(encoder=encoder) | METHODS[name]))
    config.method.args.pool = "mean"  # mean of the tokens, for all methods
    config.data.batch_size = 64
    config.schedule.update(base_lr=4e-3, epochs=EPOCHS, warmup_epochs=0.5)
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
    config.schedule = without_labels("mae", encoder).schedule
    config.evals.update(every=EVERY, run=EVALS)
    return config


def from_scratch(encoder: str) -> ConfigDict:
    """The same from scratch: one learning rate for all layers, twice that of fine-tuning."""
    config = few_labels(encoder)
    config.method.args.layer_decay = 1.0
    config.schedule.base_lr *= 2
    return config


def few_labels(encoder: str) -> ConfigDict:
    """Fine-tuning with 10% of the labels."""
    config = finetune.on_scenes()
    config.data.subset = FEW
    config.method.args.encoder = encoder
    config.schedule.update(epochs=15.0, warmup_epochs=1.5)
    return config
