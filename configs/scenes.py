"""A masked autoencoder on `fashion_scenes` for transfer, trained on two CPU cores in 10 minutes.

    mae-jax train --config scenes
    mae-jax train --config scenes:several
    mae-jax train --config scenes:cross
    mae-jax train --config scenes:hog
    mae-jax train --config scenes:ema

`finetune:scenes`, `linear_probe:scenes` and `transfer:scenes` start from it. Measured on frozen
features with 4,000 labels: k-NN 27.7%, logistic regression 36.4% (before training 14.9% and 19.9%,
raw pixels 30.8% and 28.2%).

'several' trains on scenes of one to six garments at 64 pixels, for `segment:scenes`. Other words
change the method, see VARIANTS: masks, decoders, class tokens, and targets other than pixels. The
teacher, and that of 'attention', is the encoder in runs/scenes, and the tokenizer of 'vq' that in
runs/vqvae, trained by `vqvae:scenes`. Several words are joined by commas, 'several,green'.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common
from mae_jax.types import UserError

ENCODER = "vit(width=128, depth=4, heads=4, patch=8)"
TOKENIZER = dict(
    encoder="convnext(widths=(32, 64), depths=(1, 1), stem=4, kernel=3)",
    codes=256,
    code_width=16,
    decoder_width=64,
)
"""Arguments of the tokenizer in `configs/vqvae.py`, with the same patch as ENCODER."""
SIZES = ", ".join(f"{name}={value}" for name, value in TOKENIZER.items() if name != "encoder")
VARIANTS = {
    "unit": dict(mask="random(unit=2)"),
    "green": dict(mask="noise(color=green)"),
    "attention": dict(mask=f"attention({ENCODER!r}, start=0.5, end=0.5, hint=0.1)"),
    "cross": dict(decoder="cross", predict_share=1 / 3),  # with its learning rate, see below
    "fused": dict(fuse=(1, 2, 4)),
    "tokens": dict(encoder=f"{ENCODER[:-1]}, class_tokens=4)", pool="cls_concat"),
    "lowpass": dict(target="lowpass(radius=0.18)"),
    "hog": dict(target="hog(cell=4)"),
    "pca": dict(target="pca(keep=48)"),
    "teacher": dict(target=f"teacher({ENCODER!r})"),
    "vq": dict(target=f"vq({TOKENIZER['encoder']!r}, {SIZES})", loss="cross_entropy"),
    "ema": dict(target="ema(blocks=4, decay=0.99, end=0.999)", loss="smooth_l1(beta=2.0)"),
}
"""Word -> changed arguments of the method."""


def get_config(arg: str = "") -> ConfigDict:
    """The experiment, for scenes of one garment or of 'several', and a word of VARIANTS."""
    words = arg.split(",") if arg else []
    if set(words) - {"several", *VARIANTS}:
        known = ", ".join(["several", *VARIANTS])
        raise UserError(f"configs/scenes.py:{arg}: write words of {known} after the colon")
    config = common.base()
    config.data.update(
        train="fashion_scenes(split=train)",
        test="fashion_scenes(split=test)",
        batch_size=128,
        train_transform="random_resized_crop(32, scale=(0.5, 1))|flip",
        eval_transform="resize(32)|center_crop(32)",
    )
    config.method.args = common.method_args(
        "mae",
        encoder=ENCODER,
        decoder_width=64,
        decoder_depth=1,
        decoder_heads=4,
        target="pixels(normalize=True)",
        pool="mean",
    )
    config.schedule.update(base_lr=2e-3, epochs=60.0, warmup_epochs=5.0)
    config.checkpoint.every = 500
    config.log.every = 50
    config.evals.run = "knn(k=20, limit=4000)|logistic(limit=4000)"
    for word in words:
        config.method.args.update(VARIANTS.get(word, {}))
    config.schedule.base_lr *= config.method.args.predict_share
    if "several" in words:
        config.data.update(
            train="fashion_scenes(split=train, size=64, objects=(1, 6))",
            test="fashion_scenes(split=test, size=64, objects=(1, 6))",
            fields=(),
            train_transform="random_resized_crop(64, scale=(0.5, 1))|flip",
            eval_transform="",
        )
        config.schedule.update(epochs=30.0, warmup_epochs=3.0)
        config.evals.run = ""
    elif any("target" in VARIANTS[word] for word in words):
        config.evals.run += "|knn(k=20, limit=4000, whiten=True)|spectrum"
    if "teacher" in words:
        config.init_from.teacher = dict(path="runs/scenes", into="extra/target/encoder")
    if "attention" in words:
        config.init_from.attention = dict(path="runs/scenes", into="extra/mask/encoder")
    if "vq" in words:
        config.init_from.tokenizer = dict(path="runs/vqvae", into="extra/target/tokenizer")
    return config
