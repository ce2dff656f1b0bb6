"""Experiments that use every file of my_project: edit them, or take what you need.

mae-jax train --config extended.py --workdir runs/extended
mae-jax train --config extended.py:task --workdir runs/task --config.init_from.path=runs/extended
mae-jax sweep --config extended.py --workdir runs/compared
"""

from ml_collections import ConfigDict

from mae_jax.configs import common

ENCODER = "my_project.encoder(width=32, depth=2, patch=4)"


def get_config(name: str = "masked") -> ConfigDict:
    """'masked': masked autoencoding with the encoder, mask and target of my_project; 'method': its
    method; 'task': its task, which may load the encoder of a run of one of these.
    """
    config = common.base()
    config.data.update(
        train="my_project.source(size=32, num_examples=256, seed=0)",
        test="my_project.source(size=32, num_examples=64, seed=1)",
        batch_size=32,
        train_transform="random_resized_crop(32)|my_project.transform(least=0.7)",
        eval_transform="resize(32)",
        workers=1,
    )
    shared = dict(encoder=ENCODER, pool="mean", mean=(0.5,), std=(0.25,))
    if name == "masked":
        config.method.args = common.method_args(
            "mae",
            **shared,
            mask="my_project.mask(width=2)",
            target="my_project.target",
            decoder_width=16,
            decoder_depth=1,
            decoder_heads=2,
        )
    elif name == "method":
        config.method = dict(name="my_project.method", args=dict(shared, noise=0.5))
    elif name == "task":
        config.method = dict(name="my_project.task", args=dict(shared, classes=4))
    else:
        raise ValueError(f"extended.py:{name}: choose masked, method or task")
    config.schedule.update(base_lr=1e-2, epochs=4.0, warmup_epochs=1.0)
    config.checkpoint.every = 8
    config.log.every = 4
    config.log.writers = "tensorboard|my_project.writer(file='values.csv')"
    config.evals.run = "my_project.evaluator(classes=4)|knn(k=5)"
    config.evals.figures = "curves|my_project.figure(count=32)"
    return config


def get_configs() -> dict[str, ConfigDict]:
    """The experiments of a sweep, named ROW/COLUMN/SEED."""
    return {f"{name}/stripes/0": get_config(name) for name in ("masked", "method")}
