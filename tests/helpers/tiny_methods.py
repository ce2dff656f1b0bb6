"""Methods on the images of `tiny`, by name: ten steps."""

from ml_collections import ConfigDict

from configs import common
from tests.helpers import tiny, tiny_captions

CONV = "convnext(widths=(8, 16), depths=(1, 1), stem=2, kernel=3)"
METHODS = {
    "attention": dict(
        encoder=tiny.ENCODER,
        decoder_width=8,
        decoder_depth=1,
        decoder_heads=2,
        mask=f"attention({tiny.ENCODER!r}, start=0.25, end=0.75, hint=0.2)",
    ),
    "bigan": dict(encoder=tiny.ENCODER, latent=4, decoder_width=8, discriminator_width=8),
    "clip": dict(
        vocabulary=tiny_captions.WORDS,
        length=tiny_captions.LENGTH,
        encoder=tiny.ENCODER,
        text="text_tower(width=16, depth=1, heads=2)",
        embedding=8,
        tuning_share=0.3,
    ),
    "colorization": dict(encoder=tiny.ENCODER, stride=2),
    "contrastive_tuning": dict(
        encoder=tiny.ENCODER, projector=(16, 16, 8), predictor=(16, 8), queue=12, head_share=0.4
    ),
    "ema": dict(
        encoder=tiny.ENCODER,
        decoder_width=8,
        decoder_depth=1,
        decoder_heads=2,
        target="ema(blocks=1, decay=0.9, end=0.99)",
        loss="smooth_l1",
    ),
    "fcmae": dict(encoder=CONV, decoder_width=8),
    "hpm": dict(
        encoder=tiny.ENCODER,
        decoder_width=8,
        decoder_depth=1,
        decoder_heads=2,
        predictor_depth=1,
        momentum=(0.9, 0.99),
    ),
    "m3ae": dict(
        vocabulary=tiny_captions.WORDS,
        length=tiny_captions.LENGTH,
        encoder=tiny.ENCODER,
        decoder_width=8,
        decoder_depth=1,
        decoder_heads=2,
        text_mask_ratio=0.5,
    ),
    "mocov3": dict(encoder=tiny.ENCODER, projector=(16, 16, 8), predictor=(16, 8)),
    "vae": dict(encoder=tiny.ENCODER, latent=4, decoder_width=8),
    "vqvae": dict(encoder=CONV, codes=8, code_width=4, decoder_width=8),
}
"""Method -> arguments; 'attention' and 'ema' are `mae` with this mask and this target."""
TWO_VIEWS = ("contrastive_tuning", "mocov3")
"""Methods that compare two views, and draw nothing."""
TEXTS = {"clip": "retrieval(k=(1, 5))", "m3ae": "masked_tokens"}
"""Methods of images and texts -> their evaluators."""


def get_config(name: str) -> ConfigDict:
    """One of METHODS."""
    config = tiny.get_config()
    config.method.name = "mae" if name in ("attention", "ema") else name
    config.method.args = common.method_args(config.method.name, **METHODS[name])
    config.data.views = 2 if name in TWO_VIEWS else 1
    config.schedule.update(epochs=2.5, warmup_epochs=0.5)
    config.checkpoint.every = 5
    config.evals.figures = "auto"
    if name in TEXTS:
        source = "tests.helpers.tiny_captions(split={}, num_examples={})"
        config.data.update(train=source.format("train", 32), test=source.format("test", 12))
        config.data.fields = ("label", "text", "text_valid")
        config.evals.run = TEXTS[name]
    return config
