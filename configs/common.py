"""Shared parts of the experiments: functions that return a ConfigDict to modify."""

from ml_collections import ConfigDict, config_dict

from mae_jax.models import convnext, vit
from mae_jax.ops.pixels import IMAGENET_MEAN, IMAGENET_STD
from mae_jax.spec import arguments
from mae_jax.types import UserError

MESHES = {
    "data": dict(data=-1, fsdp=1),  # parameters and moments replicated on every device
    "fsdp": dict(data=1, fsdp=-1),  # sharded over all devices
    "hybrid": dict(data=-1, fsdp=8),  # sharded in groups of 8, e.g. a host's GPUs; replicated
    # across groups
}


def base() -> ConfigDict:
    """The sections of every experiment, each the keyword arguments of one function."""
    return ConfigDict(
        dict(
            seed=0,  # random seed of parameters, data order, crops, masks, ...
            accumulate=1,  # gradient accumulation: number of microbatches, to save memory;
            # BatchNorm and mixup then see one microbatch
            max_skipped=10,  # stop after this many consecutive steps with non-finite loss or grads
            profile="",  # steps to trace with the profiler, FIRST:LAST, e.g. 20:22; empty: none
            data=dict(
                train="",  # source of the training images: "folder('path')", 'fashion_scenes(...)'
                test="",  # source of the test images; empty: none
                subset="",  # of the training images, e.g. 'share(0.01)' or 'per_class(10, seed=1)'
                held_out=0.0,  # fraction of the training images to use as the split 'val' instead
                sampling="",  # training images: '' (each once an epoch), 'balanced' or 'weighted'
                batch_size=256,  # global: over all devices, processes and microbatches
                train_transform="",
                eval_transform="",
                fields=("label",),  # fields of the source in each batch besides the image
                pipeline="arrays",  # 'arrays' (plain threads) or 'tf' (tf.data): the same batches
                workers=0,  # threads that make batches; 0: one per core
                on_error="raise",  # unreadable images: 'raise' an error or 'skip' them
                views=1,  # augmented views of each training image; 2 for contrastive methods
                repeats=1,  # rows of a batch that are crops of one decoded image
            ),
            method=dict(name="mae", args={}),  # a method or a task with labels: 'tasks.finetune'
            # Weights to initialize from: a run, published weights, hf://org/name; empty: none.
            init_from=dict(path=""),
            optimizer=dict(
                name="adamw",
                b1=0.9,
                b2=0.95,
                weight_decay=0.05,
                clip=config_dict.placeholder(float),  # largest gradient norm; None: no clipping
            ),
            schedule=dict(
                base_lr=1.5e-4,  # learning rate per 256 images: the peak is * batch_size / 256
                epochs=800.0,
                warmup_epochs=40.0,
                min_lr=0.0,
                decay="cosine",  # or 'linear', 'steps'
            ),
            mesh=dict(MESHES["data"]),  # numbers of devices along the mesh axes, see MESHES
            # XLA options per platform, 'xla_NAME=VALUE,xla_NAME=VALUE', in addition to the defaults
            # in mae_jax/engine/compiler.py; NAME=default removes one of those.
            compiler=dict(tpu="", gpu="", cpu=""),
            checkpoint=dict(every=1000, keep=2),  # steps between two checkpoints; number to keep
            # Steps between two lines of metrics; writers, e.g. 'tensorboard|wandb(cells)|mlflow'.
            log=dict(every=50, writers="tensorboard"),
            # Steps between two evaluations (0: only at the end); evaluators. At the end: figures,
            # and whether raw pixels and the random encoder are evaluated, too.
            evals=dict(every=0, run="", figures="auto", baselines=True),
        )
    )


def imagenet() -> ConfigDict:
    """`base` for ImageNet-1k at 224 pixels, read from folders."""
    config = base()
    config.data.update(
        train="folder('data/imagenet/train')",
        test="folder('data/imagenet/val')",
        eval_transform="resize(256)|center_crop(224)",
    )
    config.checkpoint.every = 2500
    return config


def method_args(name: str, **changes) -> ConfigDict:
    """All arguments of a method or task ('mae', 'tasks.finetune'): the defaults of its `make` and
    ImageNet's mean and std, updated by `changes`.
    """
    args = arguments(name, "methods", {})
    imagenet = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return ConfigDict(args | {k: v for k, v in imagenet.items() if k in args} | changes)


def encoder_of(arg: str, file: str) -> str:
    """The spec of an encoder: 'B/16' is a ViT of that size and patch, 'T' a ConvNeXt.

    Args:
        arg: 'SIZE/PATCH' or 'SIZE'.
        file: name of the config file, for messages.
    """
    size, _, patch = arg.partition("/")
    if patch.isdigit() and size in vit.SIZES:
        return f"vit({size}, patch={patch})"
    if size in convnext.SIZES and not patch:
        return f"convnext({size})"
    raise UserError(
        f"{file}:{arg}: write SIZE/PATCH for a ViT, e.g. B/16, or the size of a convolutional "
        f"encoder: {', '.join(convnext.SIZES)}"
    )
