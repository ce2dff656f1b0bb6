"""Tasks for labels other than one class, on eight scenes: four steps."""

from ml_collections import ConfigDict

from configs import outcomes

ENCODER = "vit(width=16, depth=1, heads=2, patch=8)"


def get_config(arg: str = "ordered") -> ConfigDict:
    """From scratch; `arg` as in configs/outcomes.py."""
    config, several = outcomes.get_config(arg), "heads" in arg
    for split in ("train", "test"):
        config.data[split] = (
            config.data[split]
            .replace("size=64", "size=32")
            .replace(f"split={split}", f"split={split}, num_examples={32 if several else 24}")
        )
    config.data.update(batch_size=8, subset="", workers=1)
    config.data.held_out = 0.25 if several else 0.0
    config.data.train_transform = config.data.train_transform.replace("64", "32")
    config.method.args.encoder = ENCODER
    config.schedule.update(epochs=4 / 3, warmup_epochs=0.0)
    config.checkpoint.every = 2
    config.log.every = 1
    config.evals.run = config.evals.run.replace("1000", "20")
    return config
