"""MAE pre-training on ImageNet-1k with the recipe of the paper (arXiv 2111.06377, table 8): AdamW,
base learning rate 1.5e-4, batch size 4096, 800 epochs with 40 of warm-up, only crops and flips,
normalized pixels as targets. The argument is the encoder, from Ti/16 to H/14, optionally followed
by commas and words: the mesh, `data` (default), `fsdp` or `hybrid` (see `common.MESHES`), and a
variant of the method.

    mae-jax train --config mae:L/16 --workdir runs/mae_l16 \
        --config.data.train="folder('/data/imagenet/train')" \
        --config.data.test="folder('/data/imagenet/val')"

Data prepared by TensorFlow Datasets, preferably as ArrayRecord files, are read with the source
"tfds('imagenet2012', data_dir='/data')".

Variants:

- `cross`: CrossMAE (arXiv 2401.14391) with a decoder of 12 blocks, which predicts a quarter of the
  patches and attends to mixes of all encoder blocks. The learning rate is lower by the predicted
  share of the masked patches; change both together.
- `mff`: the decoder's input is fused from six encoder blocks (arXiv 2308.00261).
- `pixio`: what Pixio (arXiv 2512.15715) changes: 256 pixels, mask units of 4 x 4 patches, 8 class
  tokens, a decoder of 32 blocks, batches of 8192, 400 epochs, base learning rate 2.5e-5. Larger
  data, learned positions, and stochastic depth in pre-training are not in this config.
- `green`: masks from green noise (ColorMAE, arXiv 2407.13036).
- `repeats`: four crops of each decoded image, for input pipelines that are slower than the step.

    mae-jax train --config mae:B/16,cross --workdir runs/cross
    mae-jax train --config mae:H/16,pixio,fsdp --workdir runs/pixio

The paper reports 85.4% fine-tuned and 73.9% with linear probing for L/16 after 800 epochs.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common
from mae_jax.models import vit
from mae_jax.types import UserError

VARIANTS = ("cross", "mff", "pixio", "green", "repeats")


def get_config(arg: str = "B/16") -> ConfigDict:
    """The experiment for an encoder 'SIZE/PATCH' (Ti, S, B, L or H), or 'SIZE/PATCH,WORD,...' with
    a mesh and variants.
    """
    encoder, *words = arg.split(",")
    size, _, patch = encoder.partition("/")
    for word in words:
        if word not in (*common.MESHES, *VARIANTS):
            known = ", ".join((*common.MESHES, *VARIANTS))
            raise UserError(f"configs/mae.py:{arg}: {word!r} is none of {known}")
    if size not in ("Ti", "S", "B", "L", "H") or not patch.isdigit():
        raise UserError(f"configs/mae.py:{encoder}: write SIZE/PATCH, e.g. B/16, L/16 or H/14")
    config = common.imagenet()
    config.data.update(
        batch_size=4096, train_transform="random_resized_crop(224, scale=(0.2, 1))|flip"
    )
    config.method.args = common.method_args(
        "mae", encoder=f"vit({size}, patch={patch})", dtype="bfloat16"
    )
    config.evals.run = "knn(k=20, limit=100000)"
    for word in words:
        if word in common.MESHES:
            config.mesh.update(common.MESHES[word])
        else:
            vary(config, word, size, patch)
    return config


def vary(config: ConfigDict, variant: str, size: str, patch: str) -> None:
    """Changes the config to one of VARIANTS."""
    args, depth = config.method.args, vit.SIZES[size]["depth"]
    if variant == "cross":
        args.update(decoder="cross", decoder_depth=12, fuse=tuple(range(depth + 1)))
        args.predict_share = 1 / 3  # a quarter of the patches, of three quarters that are masked
        config.schedule.base_lr *= args.predict_share
    elif variant == "mff":  # of 12 blocks: 1, 3, 5, 7, 9 and 12
        args.fuse = (*(depth * i // 12 for i in (1, 3, 5, 7, 9)), depth)
    elif variant == "green":
        args.mask = "noise(color=green)"
    elif variant == "repeats":
        config.data.repeats = 4
    else:
        args.update(encoder=f"vit({size}, patch={patch}, class_tokens=8)", decoder_depth=32)
        args.mask = "random(unit=4)"
        config.data.update(
            batch_size=8192,
            train_transform="random_resized_crop(256, scale=(0.2, 1))|flip",
            eval_transform="resize(292)|center_crop(256)",
        )
        config.schedule.update(base_lr=2.5e-5, epochs=400.0)
