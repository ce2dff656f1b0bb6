"""Fine-tuning of a pre-trained encoder on images and labels that a table lists. The argument is the
table, and after commas SIZE/PATCH for a ViT other than B/16, or SIZE for a convolutional encoder,
and 'balanced' to sample each class equally often.

    mae-jax train --config table:photos.csv --config.method.args.classes=5 \
        --workdir runs/photos --config.init_from.path=hf://facebook/vit-mae-base
    mae-jax train --config table:photos.csv,S/16,balanced --config.method.args.classes=5

The table has the columns 'file' (paths relative to its folder), 'label', and 'split' with the
values 'train' and 'test'. docs/data.md lists the options for other tables, to set in
config.data.train and config.data.test.
"""

from ml_collections import ConfigDict, config_dict

from mae_jax.configs import common


def get_config(arg: str = "photos.csv") -> ConfigDict:
    """The experiment for 'TABLE', with ',SIZE/PATCH' and ',balanced' or without."""
    file, *words = arg.split(",")
    sampling = "balanced" if "balanced" in words else ""
    sizes = [word for word in words if word != "balanced"] or ["B/16"]
    encoder = common.encoder_of(",".join(sizes), "configs/table.py")
    config = common.base()
    config.data.update(
        train=f"table({file!r}, split=(split, train))",
        test=f"table({file!r}, split=(split, test))",
        sampling=sampling,
        batch_size=64,
        train_transform="random_resized_crop(224, scale=(0.5, 1))|flip",
        eval_transform="resize(256)|center_crop(224)",
    )
    config.method.name = "tasks.finetune"
    config.method.args = common.method_args(
        "tasks.finetune",
        encoder=encoder,
        classes=config_dict.required_placeholder(int),
        layer_decay=0.75,
        mixup=0.0,
        cutmix=0.0,
        dtype="bfloat16",
    )
    config.optimizer.b2 = 0.999
    config.schedule.update(base_lr=1e-3, epochs=50.0, warmup_epochs=5.0, min_lr=1e-6)
    config.checkpoint.every = 200
    config.log.every = 10
    config.evals.run = "classify"
    return config
