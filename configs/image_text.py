"""Compares what images alone teach an encoder with what images and captions do: MAE, M3AE, and CLIP
of whole and of half-masked images, with the same encoder of 16 tokens an image, 100,000 images seen
and two seeds.

    mae-jax sweep --config image_text --jobs 2
    mae-jax report --sweep runs/image_text

Frozen encoders of images are evaluated by k-NN, plain and on whitened features, and logistic
regression with 4,000 labels, and by fine-tuning with 10% of the 12,000 labels, beside 'scratch'.
CLIP is also evaluated by retrieval and zero-shot classification, and M3AE by masked tokens and
patches with the true, another and no other part. Captions name the class of each scene, so methods
that read them have labels, in words. No row flips images, as captions name sides.
"""

import copy

from ml_collections import ConfigDict

from mae_jax.configs import clip, compare_methods, m3ae, scenes

SEEDS = (0, 1)
EPOCHS = 25 / 3
"""100,000 images."""
EVALS = "knn(k=20, limit=4000)|knn(k=20, limit=4000, whiten=True)|logistic(limit=4000)"
TEXTS = {
    "m3ae": "masked_tokens(limit=2000)",
    "clip": f"retrieval(limit=2000)|zero_shot(prompts={clip.PROMPTS})",
}
"""Method -> evaluators of its texts."""


def get_configs() -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    rows = {
        "mae": images_alone(),
        "m3ae": m3ae.on_scenes(),
        "clip, whole images": clip.on_scenes(),
        "clip, half masked": clip.on_scenes(),
    }
    rows["m3ae"].method.args.target = compare_methods.PIXELS  # as of 'mae'
    rows["clip, whole images"].method.args.mask_ratio = 0.0
    for row, config in rows.items():
        config.data.batch_size = 64
        config.schedule.update(base_lr=4e-3, epochs=EPOCHS, warmup_epochs=EPOCHS / 10)
        texts = TEXTS.get(config.method.name)
        config.evals.run = f"{EVALS}|{texts}" if texts else EVALS
        config.evals.baselines = row == "mae"
    configs = {}
    for seed in SEEDS:
        cells = {f"{row}/frozen": copy.deepcopy(config) for row, config in rows.items()}
        for row in rows:
            cells[f"{row}/10% of labels"] = tuned = compare_methods.few_labels(scenes.ENCODER)
            tuned.init_from.path = f"{row}/frozen/{seed}"
        cells["scratch/10% of labels"] = compare_methods.from_scratch(scenes.ENCODER)
        for name, config in cells.items():
            config.seed = seed
            configs[f"{name}/{seed}"] = config
    return configs


def images_alone() -> ConfigDict:
    """MAE of the same images, without captions."""
    config = scenes.get_config()
    config.data.train_transform = m3ae.with_captions().data.train_transform
    config.method.args.target = compare_methods.PIXELS
    return config
