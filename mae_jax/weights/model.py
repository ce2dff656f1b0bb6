"""`Found`, the contents of a file; `Options` for reading it; and `Model`, weights with the
arguments that build their network.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mae_jax.spec import build
from mae_jax.targets.pixels import Pixels
from mae_jax.types import UserError
from mae_jax.weights.processor import Images


class Found(NamedTuple):
    """The contents of a file or folder."""

    arrays: dict[str, np.ndarray]
    """Name, without the common prefix -> array."""
    config: dict[str, Any]
    """config.json of the folder; {} if there is none."""
    processor: dict[str, Any]
    """preprocessor_config.json of the folder; {} if there is none."""
    tokenizer: dict[str, Any]
    """tokenizer.json of the folder; {} if there is none."""
    notes: dict[str, Any]
    """Metadata that this package wrote; {} if there is none."""
    name: str
    """Path, for messages."""
    key: str = ""
    """The path through nested dictionaries and prefixes to these arrays; '': none."""
    beside: tuple[str, ...] = ()
    """Names of arrays in the same dictionary with other prefixes, which were not read."""


class Options(NamedTuple):
    """Options for reading weights; None: inferred from the weights or their configs."""

    heads: int | None = None
    likely_heads: int | None = None
    """Number of heads to assume if it is not known."""
    decoder_heads: int | None = None
    image_size: tuple[int, int] | None = None
    """Height and width of the images that the model will read."""
    positions: str | None = None
    """How to resize positions: 'bicubic' (as official MAE and transformers), 'antialias' (as timm)
    or 'recompute' (sine-cosine ones)."""
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    target: str | None = None
    """What a decoder predicts: 'normalized' patches or 'pixels'."""
    encoder_only: bool = False
    """Leave out decoder and head."""
    for_start: bool = False
    """For config.init_from: mean and std may be missing, as the new method has its own."""
    allow: Sequence[str] = ()
    """Regexes of names that may be missing or unused."""
    key: str | None = None
    """The set of weights to read from a file with several, see `parts.py`."""
    layout: str | None = None
    """Name of the layout, of `layouts/` or a user's; None: try all of `layouts/`."""


class Model(NamedTuple):
    """Weights in our names, and the arguments that build their network."""

    params: dict[str, np.ndarray]
    """'encoder/block_0/attention/qkv/kernel' -> float32."""
    method: str
    """'mae', 'tasks.finetune', 'tasks.linear_probe', 'tasks.encode', ..."""
    args: dict[str, Any]
    """Arguments of the method's `make`."""
    image: tuple[int, ...] | None
    """[*space, C] of its images; None: not known."""
    extra: dict[str, np.ndarray] = {}
    """Arrays of a run's state other than parameters, such as BatchNorm statistics."""
    images: Images = Images("", "")
    """Preprocessing of images, as far as imported weights describe it."""
    vocabulary: Mapping[str, Any] = {}
    """Content of the tokenizer.json of its texts; {}: there is none."""


def pixel_target(model: Model, *, frames: bool = False) -> Pixels:
    """The target of a masked autoencoder; other layouts support only pixels, which are normalized
    per patch or not.

    Args:
        frames: whether only some frames of a patch may be predicted.
    """
    target = build(model.args["target"], "targets")
    some = isinstance(target, Pixels) and target.frames and not frames
    if not isinstance(target, Pixels) or some or type(target.normalize) is str:
        raise UserError(
            f"target={model.args['target']}: this layout only holds decoders of pixels: use "
            "--encoder-only"
        )
    return target


def check_options_of_clips(options: Options, name: str) -> None:
    """Raises UserError for options that weights of clips do not have."""
    for option in ("image_size", "positions"):
        if options._asdict()[option] is not None:
            raise UserError(f"--{option.replace('_', '-')} is for images: {name} is of clips")


def portable_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a method with attention=auto in place of kernels that need a GPU or a TPU, in
    encoder and decoder, so that it runs on any device.
    """
    changed = {}
    if args.get("decoder_attention") in ("cudnn", "pallas"):
        changed["decoder_attention"] = "auto"
    if "encoder" in args:
        kind = r"""\battention\s*=\s*(['"]?)(cudnn|pallas)\1"""
        changed["encoder"] = re.sub(kind, "attention=auto", args["encoder"])
    return dict(args) | changed
