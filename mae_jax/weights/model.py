"""A model as weights and what is needed to build its network; and what a user may say of them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mae_jax.spec import build
from mae_jax.targets.pixels import Pixels
from mae_jax.types import UserError
from mae_jax.weights.processor import Images


class Options(NamedTuple):
    """What a user may say of weights; None: read off them."""

    heads: int | None = None
    likely_heads: int | None = None
    """What to take where nothing says how many."""
    decoder_heads: int | None = None
    image_size: tuple[int, int] | None = None
    """Height and width of the images that the model here is for."""
    positions: str | None = None
    """How positions come to another size: 'bicubic' (as official MAE and transformers), 'antialias'
    (as timm) or 'recompute' (fixed ones)."""
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    target: str | None = None
    """What a decoder predicts: 'normalized' patches or 'pixels'."""
    encoder_only: bool = False
    """Leave out decoder and head."""
    for_start: bool = False
    """For config.init_from: what is trained says how images are normalized."""
    allow: Sequence[str] = ()
    """Regexes of names that may be missing or left over."""
    key: str | None = None
    """Which weights of a file with several sets, see `parts.py`."""
    layout: str | None = None
    """The only one to try, of `layouts/` or a user's; None: all of `layouts/`."""


class Model(NamedTuple):
    """Weights in our names, and what is needed to build the network that they are of."""

    params: dict[str, np.ndarray]
    """'encoder/block_0/attention/qkv/kernel' -> float32."""
    method: str
    """'mae', 'tasks.finetune', 'tasks.linear_probe', 'tasks.encode', ..."""
    args: dict[str, Any]
    """Of its `make`."""
    image: tuple[int, ...] | None
    """[*space, C] of the images it was made for; None: not known."""
    extra: dict[str, np.ndarray] = {}
    """Collections beside the parameters, of runs."""
    images: Images = Images("", "")
    """How images are made, as far as imported weights say it."""


def pixel_target(model: Model) -> Pixels:
    """The target of a masked autoencoder, which must be pixels in the layouts of others."""
    target = build(model.args["target"], "targets")
    if not isinstance(target, Pixels):
        raise UserError(f"a decoder of {model.args['target']} has no place: use --encoder-only")
    return target


def portable_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a method with attention=auto in place of a kernel of one kind of device, in
    encoder and decoder: it may be computed on another than it was trained on.
    """
    changed = {}
    if args.get("decoder_attention") in ("cudnn", "pallas"):
        changed["decoder_attention"] = "auto"
    if "encoder" in args:
        kind = r"""\battention\s*=\s*(['"]?)(cudnn|pallas)\1"""
        changed["encoder"] = re.sub(kind, "attention=auto", args["encoder"])
    return dict(args) | changed
