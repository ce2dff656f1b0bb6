"""Low-shot evaluation with 1%, 10% and 100% of the labels and three seeds each: the frozen encoder
(k-NN, logistic regression, linear probe), the frozen encoder with random weights, fine-tuning, and
training from scratch on the same budget.

    mae-jax sweep --config low_shot:B/16,runs/mae_b16
    mae-jax sweep --config low_shot:scenes

The argument is SIZE/PATCH[,WORKDIR] or scenes[,WORKDIR], with the workdir of the pre-trained run
(default: e.g. runs/mae_B_16, or runs/scenes). Fewer labels mean more epochs but fewer steps; the
numbers of epochs are our own choice, as the paper has no such experiment. From scratch, all layers
have the same learning rate, twice that of fine-tuning. For frozen encoders, a part of the labels is
held out to choose the learning rate of the probe; k-NN and logistic regression do not use that part
either. With 100% of the labels, the seeds change only the order of images and the randomness of the
model.
"""

import copy

from ml_collections import ConfigDict

from mae_jax.configs import finetune, linear_probe

SEEDS = (0, 1, 2)
SHARES = {"1%": 0.01, "10%": 0.1, "100%": 1.0}


def get_configs(arg: str = "B/16") -> dict[str, ConfigDict]:
    """ROW/COLUMN/SEED -> experiment, for 'SIZE/PATCH[,WORKDIR]' or 'scenes[,WORKDIR]'."""
    model, _, start = arg.partition(",")
    start = start or default_start(model)
    configs = {}
    for labels in SHARES:
        for seed in SEEDS:
            for row, config in rows(model, start).items():
                configs[f"{row}/{labels}/{seed}"] = with_labels(config, labels, seed)
    return configs


def default_start(model: str) -> str:
    """The default workdir of `mae-jax train` for the pre-training of this model."""
    return "runs/scenes" if model == "scenes" else f"runs/mae_{model.replace('/', '_')}"


def rows(model: str, start: str) -> dict[str, ConfigDict]:
    """The experiments to compare: row of the table -> experiment."""
    frozen, tuned = linear_probe.get_config(model), finetune.get_config(model)
    limit = "" if model == "scenes" else "(limit=100000)"  # images whose features fit on a device
    frozen.evals.run = f"probe|knn(k=10)|logistic{limit}"
    scratch = copy.deepcopy(tuned)
    scratch.method.args.layer_decay = 1.0
    scratch.schedule.base_lr *= 2
    random = copy.deepcopy(frozen)
    frozen.init_from.path = tuned.init_from.path = start
    return {"random-frozen": random, "frozen": frozen, "finetuned": tuned, "scratch": scratch}


def with_labels(config: ConfigDict, labels: str, seed: int) -> ConfigDict:
    """The experiment with this share of the labels, drawn with this seed."""
    config, share = copy.deepcopy(config), SHARES[labels]
    config.seed = seed
    more = share**-0.39  # 1% of the labels: 6 times the epochs, 6% of the steps
    config.schedule.update(
        epochs=round(config.schedule.epochs * more, 1),
        warmup_epochs=round(config.schedule.warmup_epochs * more, 1),
    )
    if share < 1:
        config.data.subset = f"share({share}, seed={seed})"
    if config.data.held_out:
        config.data.held_out = 0.2 if share < 0.1 else config.data.held_out
    return config
