"""The official code of MAE_ST (arXiv 2205.09113, facebookresearch/mae_st): masked autoencoder, and
classifier of the normalized mean of the patches.

Its positions are separate in space and time, queries, keys and values are separate layers, and the
decoder has a class token of its own. One file holds neither heads nor statistics of pixels: the
published ones have 16 heads in the decoder and normalized targets, of clips with the mean 0.45 and
the deviation 0.225.
"""

import logging
import math
from typing import Any

import numpy as np

from mae_jax.models.encoder import Encoder
from mae_jax.models.vit import ViT
from mae_jax.ops.patches import grid_of
from mae_jax.spec import build
from mae_jax.types import UserError
from mae_jax.weights.described import described
from mae_jax.weights.heads import heads_of
from mae_jax.weights.infer import (
    blocks_of,
    decoder_args,
    refuse_for_decoders,
    statistics_of,
    vit_spec,
)
from mae_jax.weights.layout import POSITIONS, Row, Shape, dense, norm
from mae_jax.weights.layouts import Layout, Rows
from mae_jax.weights.model import Found, Model, Options, check_options_of_clips, pixel_target

logger = logging.getLogger(__name__)

MEAN, STD = (0.45,), (0.225,)
MASK_RATIO = 0.9


def _block(ours: str, theirs: str) -> list[Row]:
    """Rows of a transformer block."""
    return [
        *norm(f"{ours}/norm1", f"{theirs}.norm1"),
        *dense(f"{ours}/attention/qkv", *(f"{theirs}.attn.{part}" for part in "qkv")),
        *dense(f"{ours}/attention/proj", f"{theirs}.attn.proj"),
        *norm(f"{ours}/norm2", f"{theirs}.norm2"),
        *dense(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1"),
        *dense(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2"),
    ]


def _tokens(ours: str, theirs: str) -> list[Row]:
    """Rows of the class token and positions of the encoder or the decoder."""
    return [
        Row(f"{ours}/cls_token", (f"{theirs}cls_token",), "same"),
        Row(f"{ours}/positions_class", (f"{theirs}pos_embed_class",), "table"),
        Row(f"{ours}/positions_space", (f"{theirs}pos_embed_spatial",), "table"),
        Row(f"{ours}/positions_time", (f"{theirs}pos_embed_temporal",), "table"),
        Row(f"{ours}/positions", (f"{theirs}pos_embed",), "table"),
    ]


ENCODER = [
    *_tokens("encoder", ""),
    Row("encoder/embed/kernel", ("patch_embed.proj.weight",), "clip_patch"),
    Row("encoder/embed/bias", ("patch_embed.proj.bias",), "same"),
    *_block("encoder/block_{}", "blocks.{}"),
]
AUTOENCODER = [
    *ENCODER,
    *norm("encoder/norm", "norm"),
    *_tokens("decoder", "decoder_"),
    Row("decoder/mask_token", ("mask_token",), "same"),
    *dense("decoder/embed", "decoder_embed"),
    *_block("decoder/block_{}", "decoder_blocks.{}"),
    *norm("decoder/norm", "decoder_norm"),
    *dense("decoder/predict", "decoder_pred"),
]
CLASSIFIER = [*ENCODER, *norm("fc_norm", "norm"), *dense("head", "head")]
"""Its norm follows the mean over the patches."""


def make() -> Layout:
    """Makes the layout: one file, with or without a decoder, or with a head."""
    return Layout(
        readable=[AUTOENCODER, CLASSIFIER],
        networks="the official MAE_ST",
        package="the official code",
        class_token=False,
        choose=_table,
        axes=3,
        infer=infer,
    )


def infer(found: Found, params: dict[str, np.ndarray], shape: Shape, options: Options) -> Model:
    """The masked autoencoder, classifier or encoder of arrays in our names.

    Args:
        found: the contents of the file.
        params: path -> array.
        shape: of a patch.
        options: the user's.

    Raises:
        UserError: a description is missing, or the model is none of ours.
    """
    name, known = found.name, described(found)
    check_options_of_clips(options, name)
    image = _image(params, shape, name)
    width, depth = params["encoder/embed/bias"].size, blocks_of(params, "encoder")
    heads = heads_of(known, options, width, name, moco=False)
    if options.mean is None and "mean" not in known and shape.channels == 3:
        logger.warning("%s does not contain mean and std of images: assuming MAE_ST's", name)
        known |= dict(mean=MEAN, std=STD)
    mean, std = statistics_of(known, options, shape.channels, name)
    hidden = params["encoder/block_0/mlp/fc1/bias"].size
    more = {} if "encoder/cls_token" in params else dict(class_tokens=0)
    sizes = dict(width=width, depth=depth, heads=heads)
    encoder = vit_spec(sizes, shape.patch, hidden, **more, positions="separable")
    args = dict(encoder=encoder, mean=mean, std=std)
    if any(path.startswith("decoder/") for path in params):
        args |= _decoder(params, known, shape, options, name)
        return Model(params, "mae", args, image)
    refuse_for_decoders(options, name)
    args |= dict(pool=known.get("pool", "mean"))
    if "head/kernel" in params:
        if more:
            raise UserError(
                f"{name} classifies without a class token, where MAE_ST's code leaves out the "
                "first patch, which is not supported: --encoder-only"
            )
        args |= dict(classes=params["head/kernel"].shape[1], drop_path=0.0)
        return Model(params, "tasks.finetune", args, image)
    if "encoder/norm/scale" not in params:
        args["encoder"] = f"{encoder[:-1]}, final_norm=False)"
    return Model(params, "tasks.encode", args, image)


def _image(params: dict[str, np.ndarray], shape: Shape, name: str) -> tuple[int, ...]:
    """[T, H, W, C] of the clips, from the tables of positions."""
    if POSITIONS in params:
        raise UserError(
            f"{name} has one table of positions for space and time, which does not tell the frames "
            "of its clips: only models with sep_pos_embed are supported"
        )
    steps, places = (len(params[f"encoder/positions_{part}"]) for part in ("time", "space"))
    grid = (steps, math.isqrt(places), math.isqrt(places))
    if grid[1] ** 2 != places:
        raise UserError(f"{name} has positions of {places} patches, which are no square")
    return (*(n * side for n, side in zip(grid, shape.patch, strict=True)), shape.channels)


def _decoder(
    params: dict, known: dict, shape: Shape, options: Options, name: str
) -> dict[str, Any]:
    """The arguments of a masked autoencoder."""
    if "target" not in known and options.target is None:
        logger.warning(
            "%s does not contain the target of its decoder: assuming normalized pixels, as in the "
            "published models: otherwise --target pixels",
            name,
        )
        known = known | dict(target="normalized")
    known = dict(mask_ratio=MASK_RATIO, pool="mean") | known
    args = decoder_args(params, known, options, name)
    values, (steps, *sides) = params["decoder/predict/bias"].size, shape.patch
    frames, rest = divmod(values, math.prod(sides) * shape.channels)
    if rest or not 0 < frames <= steps:
        raise UserError(
            f"{name} predicts {values} values of each patch, which are no frames of "
            f"{' x '.join(map(str, sides))} pixels: leave the decoder out with --encoder-only"
        )
    if frames < steps:
        args["target"] = f"{args['target'][:-1]}, frames={frames})"
    return args | dict(
        decoder_positions="separable", decoder_class_tokens="encoder/cls_token" in params
    )


def _table(model: Model) -> Rows:
    """The table to write a model with.

    Raises:
        UserError: it is not MAE_ST's.
    """
    network, args = build(model.args["encoder"], "models", Encoder), model.args
    vit = isinstance(network, ViT)
    fits = {
        "positions=separable": vit and network.positions == "separable",
        "class_tokens=1 or 0": network.prefix < 2,
        "square clips and patches": vit
        and len({*grid_of(model.image[:-1], network.patch)[1:]}) == 1
        and model.image[1] == model.image[2],
    }
    if "decoder/mask_token" in model.params:
        pixel_target(model, frames=True)
        own = bool(network.prefix)
        fits |= {
            "decoder=self": args.get("decoder", "self") == "self",
            "decoder_positions=separable": args.get("decoder_positions") == "separable",
            "decoder_embed_bias=True": args.get("decoder_embed_bias", True),
            f"decoder_class_tokens={own}": args.get("decoder_class_tokens", False) == own,
        }
    if "head/kernel" in model.params:
        fits["a classifier of the mean with a class token (pool=mean)"] = (
            "fc_norm/scale" in model.params and network.prefix == 1
        )
    for option, fit in fits.items():
        if not fit:
            raise UserError(f"the layout mae_st needs {option}: use --format stablehlo")
    return CLASSIFIER if "head/kernel" in model.params else AUTOENCODER
