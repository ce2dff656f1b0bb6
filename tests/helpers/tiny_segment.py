"""Segmentation of eight scenes of several garments: four steps with the head 'linear' or 'upernet',
or 'overfit'.
"""

from ml_collections import ConfigDict

from configs import segment

ENCODER = "vit(width=64, depth=3, heads=4, patch=8)"


def get_config(arg: str = "linear") -> ConfigDict:
    """From scratch."""
    config = segment.get_config("scenes")
    # With this seed all classes are there, on at least 264 pixels.
    scenes = "fashion_scenes(split=train, size=64, num_examples=8, objects=(1, 6), seed=3)"
    config.data.update(train=scenes, test="", subset="", batch_size=8, workers=1)
    config.method.args.update(encoder=ENCODER, width=32)
    config.log.every = 1
    config.evals.run = ""
    if arg != "overfit":
        small = "vit(width=16, depth=3, heads=2, patch=8)"
        config.method.args.update(encoder=small, head=arg, width=8, drop_path=0.1, photometric=True)
        config.schedule.update(epochs=4.0, warmup_epochs=1.0)
        config.checkpoint.every = 2
        config.data.test = scenes.replace("split=train", "split=test")
        config.evals.update(run="segmentation(size=64)", figures="curves|segmentation(count=3)")
    else:
        config.data.train_transform = ""
        config.method.args.layer_decay = 1.0
        config.schedule.update(base_lr=0.5, epochs=600.0, warmup_epochs=20.0)
    return config
