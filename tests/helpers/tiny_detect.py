"""Detection in eight scenes of several garments: four steps, or 'overfit'."""

from ml_collections import ConfigDict

from configs import detect

WIDER = "vitdet(width=64, depth=4, heads=4, patch=8, window=4, global_blocks=2, position_grid=8)"
ENCODER = "vitdet(width=16, depth=2, heads=2, patch=8, window=2, global_blocks=1, position_grid=4)"


def get_config(arg: str = "resume") -> ConfigDict:
    """From scratch."""
    config = detect.get_config("scenes")
    size, most = (64, 2) if arg == "overfit" else (32, 6)
    options = f"size={size}, num_examples=8, objects=(1, {most}), seed=3"
    scenes = f"fashion_scenes(split=train, {options})"
    config.data.update(train=scenes, test=scenes, subset="", batch_size=8, workers=1)
    config.log.every = 1
    if arg == "overfit":
        config.data.train_transform = ""
        config.data.eval_transform = ""
        config.method.args.update(encoder=WIDER, size=64, width=32, sample=64, layer_decay=1.0)
        config.schedule.update(base_lr=0.032, epochs=300.0, warmup_epochs=10.0)
        config.checkpoint.every = 1000
        config.evals.run = "detection(size=64, batch_size=8)"
        return config
    jitter = "large_scale_jitter(32, scale=(0.7, 1.4))"
    config.data.train_transform = f"flip|{jitter}"
    config.data.eval_transform = "large_scale_jitter(32, scale=(1, 1))"
    config.method.args.update(encoder=ENCODER, size=32, width=8, hidden=16, sample=16)
    config.method.args.update(proposals=16, detections=5, drop_path=0.1)
    config.schedule.update(epochs=4.0, warmup_epochs=1.0)
    config.checkpoint.every = 2
    config.evals.update(run="detection(size=32, batch_size=4)", figures="curves|detection(count=3)")
    return config
