"""MAE pre-training on ImageNet-1k with the recipe of the paper (arXiv 2111.06377, table 8): AdamW,
base learning rate 1.5e-4, batch size 4096, 800 epochs with 40 of warm-up, only crops and flips,
normalized pixels as targets. The argument is the encoder, from Ti/16 to H/14, optionally followed
by a comma and the mesh: `data` (default), `fsdp` or `hybrid` (see `common.MESHES`).

    mae-jax train --config mae:L/16 --workdir runs/mae_l16 \
        --config.data.train="folder('/data/imagenet/train')" \
        --config.data.test="folder('/data/imagenet/val')"

Data prepared by TensorFlow Datasets, preferably as ArrayRecord files, are read with the source
"tfds('imagenet2012', data_dir='/data')".

The paper reports 85.4% fine-tuned and 73.9% with linear probing for L/16 after 800 epochs.
"""

from ml_collections import ConfigDict

from mae_jax.configs import common
from mae_jax.types import UserError


def get_config(arg: str = "B/16") -> ConfigDict:
    """The experiment for an encoder 'SIZE/PATCH' (Ti, S, B, L or H) or 'SIZE/PATCH,MESH'."""
    encoder, _, mesh = arg.partition(",")
    size, _, patch = encoder.partition("/")
    mesh = mesh or "data"
    if mesh not in common.MESHES:
        raise UserError(f"configs/mae.py:{arg}: write {', '.join(common.MESHES)} after the comma")
    if size not in ("Ti", "S", "B", "L", "H") or not patch.isdigit():
        raise UserError(f"configs/mae.py:{encoder}: write SIZE/PATCH, e.g. B/16, L/16 or H/14")
    config = common.imagenet()
    config.data.update(
        batch_size=4096, train_transform="random_resized_crop(224, scale=(0.2, 1))|flip"
    )
    config.method.args = common.method_args(
        "mae", encoder=f"vit({size}, patch={patch})", dtype="bfloat16"
    )
    config.mesh.update(common.MESHES[mesh])
    config.evals.run = "knn(k=20, limit=100000)"
    return config
