"""MAE pre-training on ImageNet-1k with the recipe of the paper (arXiv 2111.06377, table 8):
AdamW, base learning rate 1.5e-4, batch 4096, 800 epochs of which 40 warm-up, crops and flips only,
normalized pixels as targets. The argument is the encoder, from Ti/16 to H/14, and behind a comma
how parameters lie on the devices: `data` (default), `fsdp` or `hybrid` (see `common.MESHES`).

    mae-jax train --config mae:L/16 --workdir runs/mae_l16 \
        --config.data.train="folder('/data/imagenet/train')" \
        --config.data.test="folder('/data/imagenet/val')"

A set that TensorFlow Datasets has prepared is read with "tfds('imagenet2012', data_dir='/data')",
best in ArrayRecord files.

The paper reports, for 800 epochs of L/16, 85.4% fine-tuned and 73.9% in linear probing.
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
        raise UserError(f"configs/mae.py:{arg}: after the comma, {', '.join(common.MESHES)}")
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
