"""One short run of each option of masked autoencoding beside the plain one, with one seed: the
words of `configs/scenes.py`, hard patches mining, and contrastive tuning of the plain run.

    mae-jax sweep --config masked_options
    mae-jax report --sweep runs/masked_options

Teachers are the encoder of the plain run, and the codes are of `vqvae`. Every run sees 60,000
images of 16 patches, in steps of 64 as in `compare_methods`, and pixels are not normalized; `vq`
and `ema` see 120,000. This is enough to see whether an option learns, and too little to rank them:
a mask unit of two patches leaves four units, and masks of 4 x 4 patches have hardly a spectrum.
"""

from ml_collections import ConfigDict

from mae_jax.configs import contrastive_tuning, hpm, scenes, vqvae

EPOCHS = 5.0
LONGER = ("vq", "ema")
"""Targets that learn more slowly, and have twice the epochs."""
EVALS = "knn(k=20, limit=4000)|knn(k=20, limit=4000, whiten=True)|logistic(limit=4000)|spectrum"
NOT_NORMALIZED = {
    "pixels(normalize=True)": "pixels(normalize=False)",
    "lowpass(radius=0.18)": "lowpass(radius=0.18, normalize=False)",
}
PLAIN, TOKENIZER = "plain/frozen/0", "vqvae/frozen/0"


def get_configs() -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    configs = {
        "plain": scenes.get_config(),
        **{word: scenes.get_config(word) for word in scenes.VARIANTS},
        "hpm": hpm.get_config("scenes"),
        "vqvae": vqvae.get_config("scenes"),
        "tuned": contrastive_tuning.get_config("scenes"),
    }
    configs["tuned"].init_from.path = PLAIN
    starts = {"teacher": PLAIN, "attention": PLAIN, "vq": TOKENIZER}
    for word, start in starts.items():
        (section,) = (x for x in configs[word].init_from.values() if isinstance(x, ConfigDict))
        section.path = start
    for word, config in configs.items():
        if config.method.args.get("target") in NOT_NORMALIZED:  # better features in short runs
            config.method.args.target = NOT_NORMALIZED[config.method.args.target]
        config.data.batch_size = 64
        config.schedule.base_lr *= 2
        epochs = EPOCHS * (2 if word in LONGER else 1)
        config.schedule.update(epochs=epochs, warmup_epochs=epochs / 10)
        config.evals.run = EVALS
    return {f"{word}/frozen/0": config for word, config in configs.items()}
