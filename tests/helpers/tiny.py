"""A run small enough to train in a test: 8 x 12 images of 4 x 4 patches, 4 steps an epoch."""

from ml_collections import ConfigDict

from configs import common

ENCODER = "vit(width=16, depth=1, heads=2, patch=4)"


def get_config() -> ConfigDict:
    """40 steps on 32 scenes, a checkpoint every 10."""
    config = common.base()
    config.data.update(
        train="fashion_scenes(split=train, size=16, num_examples=32)",
        test="fashion_scenes(split=test, size=16, num_examples=12)",
        batch_size=8,
        train_transform="random_resized_crop((8, 12))|flip",
        eval_transform="resize((8, 12))",
        workers=1,
    )
    config.method.args = common.method_args(
        "mae", encoder=ENCODER, decoder_width=8, decoder_depth=1, decoder_heads=2
    )
    config.schedule.update(base_lr=0.1, epochs=10.0, warmup_epochs=1.0)
    config.checkpoint.every = 10
    config.log.every = 1
    config.evals.figures = ""  # drawing costs as much as the steps
    return config
