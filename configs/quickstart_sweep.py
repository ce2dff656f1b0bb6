"""What the encoder of `configs/quickstart.py` is worth with few labels: pre-training on all 12,000
images without labels, then fine-tuning with 10% of the labels, beside the same network from scratch
with the same budget.

    mae-jax sweep --config quickstart_sweep --jobs 2
"""

from ml_collections import ConfigDict

from mae_jax.configs import finetune, quickstart


def get_configs() -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment."""
    few = few_labels()
    few.init_from.path = "mae/frozen/0"
    scratch = few_labels()
    scratch.method.args.layer_decay = 1.0  # one learning rate for all layers
    return {
        "mae/10% of labels/0": few,
        "scratch/10% of labels/0": scratch,
        "mae/frozen/0": quickstart.get_config(),
    }


def few_labels() -> ConfigDict:
    """Fine-tuning with 10% of the labels."""
    config = finetune.on_scenes()
    config.data.subset = "share(0.1, seed=0)"
    config.method.args.update(encoder=quickstart.ENCODER, layer_decay=0.9)
    config.schedule.update(base_lr=4e-3, epochs=10.0, warmup_epochs=1.0)
    config.evals.every = 94  # half of the steps
    return config
