"""M3AE (Geng et al. 2022, arXiv 2205.14204): masked autoencoding of images and their texts. The
argument is SIZE/PATCH for a ViT, or 'scenes'.

    mae-jax train --config m3ae:L/16 --workdir runs/m3ae_l16
    mae-jax train --config m3ae:scenes

The numbers are those of the authors' code (young-geng/m3ae_public, README): 256 pixels, 64 tokens
of BERT's tokenizer, 75% of the patches and of the tokens masked, image loss plus half of the text
loss, batch size 4096, base learning rate 1.5e-4, 100 epochs of CC12M with 5 of warm-up, crops of
0.2 to 1 and flips. The data are shards of images and captions, see docs/text.md. If the tokenizer
is another one, set `vocabulary` to its size.

'scenes' trains on the images of `scenes`, with captions, on CPUs. It has no flips, after which 'on
the left' would be wrong. `finetune:scenes` can start from it.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common, scenes

FIELDS = ("label", "text", "text_valid")
WORDS = 151
"""Number of tokens of the captions of scenes."""
LENGTH = 32
"""Tokens of a caption of scenes, with its padding."""


def get_config(arg: str = "B/16") -> ConfigDict:
    """The experiment for 'SIZE/PATCH' or 'scenes'."""
    if arg == "scenes":
        return on_scenes()
    config = common.base()
    config.data.update(
        train=shards("train", length=64),
        test=shards("val", length=64),
        fields=FIELDS[1:],
        batch_size=4096,
        train_transform="random_resized_crop(256, scale=(0.2, 1))|flip",
        eval_transform="resize(292)|center_crop(256)",
    )
    config.method.name = "m3ae"
    config.method.args = common.method_args(
        "m3ae",
        vocabulary=30522,
        length=64,
        encoder=common.encoder_of(arg, "configs/m3ae.py"),
        dtype="bfloat16",
    )
    config.schedule.update(base_lr=1.5e-4, epochs=100.0, warmup_epochs=5.0)
    config.evals.run = "masked_tokens(limit=5000)"
    return config


def shards(split: str, *, length: int) -> str:
    """The source of a folder of tar files with images and their captions as .txt."""
    images = f"tar('data/cc12m/{split}/*.tar', captions=txt)"
    return f"captioned({images!r}, tokenizer='data/bert.json', length={length})"


def on_scenes() -> ConfigDict:
    """M3AE of scenes with captions, with the encoder and schedule of `scenes`."""
    config = with_captions()
    config.method.name = "m3ae"
    config.method.args = common.method_args(
        "m3ae",
        vocabulary=WORDS,
        length=LENGTH,
        encoder=scenes.ENCODER,
        decoder_width=64,
        decoder_depth=1,
        decoder_heads=4,
        target="pixels(normalize=True)",
        pool="mean",
    )
    config.evals.run += "|masked_tokens(limit=1000)"
    return config


def with_captions() -> ConfigDict:
    """`scenes` with captions, for methods of images and texts."""
    config = scenes.get_config()
    source = f"fashion_scenes(split={{}}, captions=True, length={LENGTH})"
    config.data.update(
        train=source.format("train"),
        test=source.format("test"),
        fields=FIELDS,
        train_transform="random_resized_crop(32, scale=(0.5, 1))",
    )
    return config
