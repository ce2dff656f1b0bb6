"""A masked autoencoder on `fashion_scenes` for transfer, trained on two CPU cores in 10 minutes.

    mae-jax train --config scenes
    mae-jax train --config scenes:several
    mae-jax train --config scenes:hog

`finetune:scenes`, `linear_probe:scenes` and `transfer:scenes` start from it. Measured on frozen
features with 4,000 labels: k-NN 27.7%, logistic regression 36.4% (before training 14.9% and 19.9%,
raw pixels 30.8% and 28.2%).

'several' trains on scenes of one to six garments at 64 pixels, for `segment:scenes`. 'lowpass',
'hog', 'pca' and 'teacher' are other targets than pixels; the teacher is the encoder in runs/scenes.
"""

from ml_collections import ConfigDict

from mae_jax.configs import quickstart
from mae_jax.types import UserError

ENCODER = "vit(width=128, depth=4, heads=4, patch=8)"

TARGETS = {
    "lowpass": "lowpass(radius=0.18)",
    "hog": "hog(cell=4)",
    "pca": "pca(keep=48)",
    "teacher": f"teacher({ENCODER!r})",
}
"""Argument -> target."""


def get_config(arg: str = "") -> ConfigDict:
    """The experiment, for scenes of one garment or of 'several', or with one of `TARGETS`."""
    known = ("several", *TARGETS)
    if arg not in ("", *known):
        raise UserError(f"configs/scenes.py:{arg}: write scenes, or scenes:{', '.join(known)}")
    config = quickstart.get_config()
    config.method.args.update(encoder=ENCODER, target="pixels(normalize=True)")
    config.schedule.update(base_lr=2e-3, epochs=60.0, warmup_epochs=5.0)
    config.checkpoint.every = 500
    config.log.every = 50
    config.evals.update(every=0, run="knn(k=20, limit=4000)|logistic(limit=4000)")
    if arg == "several":
        config.data.update(
            train="fashion_scenes(split=train, size=64, objects=(1, 6))",
            test="fashion_scenes(split=test, size=64, objects=(1, 6))",
            fields=(),
            train_transform="random_resized_crop(64, scale=(0.5, 1))|flip",
            eval_transform="",
        )
        config.schedule.update(epochs=30.0, warmup_epochs=3.0)
        config.evals.run = ""
    if arg in TARGETS:
        config.method.args.target = TARGETS[arg]
        config.evals.run += "|knn(k=20, limit=4000, whiten=True)|spectrum"
    if arg == "teacher":
        config.init_from.teacher = dict(path="runs/scenes", into="extra/target/encoder")
    return config
