"""What several experiments share: plain functions that return a ConfigDict to change."""

from ml_collections import ConfigDict, config_dict

from mae_jax.models import convnext, vit
from mae_jax.ops.pixels import IMAGENET_MEAN, IMAGENET_STD
from mae_jax.spec import arguments
from mae_jax.types import UserError

MESHES = {
    "data": dict(data=-1, fsdp=1),  # each device holds all parameters
    "fsdp": dict(data=1, fsdp=-1),  # parameters and moments are split over all devices
    "hybrid": dict(data=-1, fsdp=8),  # over groups of 8, e.g. the GPUs of a host; copied between
}


def base() -> ConfigDict:
    """The sections that every experiment has, each one function's keyword arguments."""
    return ConfigDict(
        dict(
            seed=0,  # of everything: parameters, order, crops, masks
            accumulate=1,  # parts of a batch, one after another, to save memory; BatchNorm and
            # mixup then see a part
            max_skipped=10,  # steps in a row with a loss or gradient that is not finite, then stop
            profile="",  # steps of which a trace is written, FIRST:LAST, e.g. 20:22
            data=dict(
                train="",  # source of the training images: "folder('path')", 'fashion_scenes(...)'
                test="",  # source of the held-out images; empty: none
                subset="",  # of the training images, e.g. 'share(0.01)' or 'per_class(10, seed=1)'
                held_out=0.0,  # share of the training images that is the split 'val' instead
                batch_size=256,  # of all devices and processes together, accumulation included
                train_transform="",
                eval_transform="",
                fields=("label",),  # of the sources that batches carry beside the image, if any
                pipeline="arrays",  # 'arrays' (plain threads) or 'tf' (tf.data): the same batches
                workers=0,  # threads that make batches; 0: one a core
                on_error="raise",  # what to do about images that cannot be read: 'raise' or 'skip'
                views=1,  # of each training image; 2 for simclr and mocov3
            ),
            method=dict(name="mae", args={}),  # or a task with labels: 'tasks.finetune', ...
            # What the encoder starts from: a run, published weights, hf://org/name; empty: none.
            init_from=dict(path=""),
            optimizer=dict(
                name="adamw",
                b1=0.9,
                b2=0.95,
                weight_decay=0.05,
                clip=config_dict.placeholder(float),  # largest gradient norm; none in the paper
            ),
            schedule=dict(
                base_lr=1.5e-4,  # times batch_size / 256
                epochs=800.0,
                warmup_epochs=40.0,
                min_lr=0.0,
                decay="cosine",  # or 'linear'
            ),
            mesh=dict(MESHES["data"]),  # devices that split the batch, and the parameters too
            # Options of XLA, 'xla_NAME=VALUE,xla_NAME=VALUE', for a run on one of these platforms,
            # beside those of mae_jax/engine/compiler.py; NAME=default leaves one of them out.
            compiler=dict(tpu="", gpu="", cpu=""),
            checkpoint=dict(every=1000, keep=2),  # steps between two, and how many stay
            log=dict(every=50),  # steps between two lines
            # Steps between two (0: at the end), which evaluators, and which figures at the end.
            evals=dict(every=0, run="", figures="auto"),
        )
    )


def imagenet() -> ConfigDict:
    """`base` with ImageNet-1k at 224 pixels, from folders."""
    config = base()
    config.data.update(
        train="folder('data/imagenet/train')",
        test="folder('data/imagenet/val')",
        eval_transform="resize(256)|center_crop(224)",
    )
    config.checkpoint.every = 2500
    return config


def method_args(name: str, **changes) -> ConfigDict:
    """All arguments of a method or task, 'mae' or 'tasks.finetune': what its `make` documents, with
    its defaults and the pixels of ImageNet but for these changes.
    """
    args = arguments(name, "methods", {})
    imagenet = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return ConfigDict(args | {k: v for k, v in imagenet.items() if k in args} | changes)


def encoder_of(arg: str, file: str) -> str:
    """The spec of an encoder: 'B/16' is a ViT of that size and patch, 'T' a convolutional one."""
    size, _, patch = arg.partition("/")
    if patch.isdigit() and size in vit.SIZES:
        return f"vit({size}, patch={patch})"
    if size in convnext.SIZES and not patch:
        return f"convnext({size})"
    raise UserError(
        f"{file}:{arg}: write SIZE/PATCH for a ViT, e.g. B/16, or the size of a convolutional "
        f"encoder: {', '.join(convnext.SIZES)}"
    )
