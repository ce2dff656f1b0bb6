"""VideoMAE (arXiv 2203.12602) of Hugging Face: `VideoMAEForPreTraining`, `VideoMAEModel` and, only
read, `VideoMAEForVideoClassification` of transformers, with the names of published files.

Its keys have no bias, which the softmax would cancel, and its positions are no parameters. Norms
have the epsilon 1e-6, as in the original code; transformers' own defaults, 1e-12, and 1e-5 in the
decoder's norm and the classifier's, change predictions by little.
"""

import logging
import math
from typing import Any

import numpy as np

from mae_jax.models.encoder import Encoder
from mae_jax.models.vit import ViT
from mae_jax.ops.pixels import IMAGENET_MEAN, IMAGENET_STD
from mae_jax.ops.posemb import flat_sincos
from mae_jax.spec import build
from mae_jax.types import UserError
from mae_jax.weights.described import check_sizes, described
from mae_jax.weights.heads import agreed, heads_of
from mae_jax.weights.infer import blocks_of, statistics_of, vit_spec
from mae_jax.weights.layout import POSITIONS, Row, Shape, dense, norm
from mae_jax.weights.layouts import Layout, hf
from mae_jax.weights.model import Found, Model, Options, check_options_of_clips
from mae_jax.weights.processor import each_channel, written

logger = logging.getLogger(__name__)

DECODER_HEADS = 6
TARGET = "pixels(normalize=channels)"


def _block(ours: str, theirs: str, published: bool) -> list[Row]:
    rows = hf.block(ours, theirs, hf.ON_DISK, key_bias=False)
    if not published:
        return rows
    names = lambda row: tuple(
        name.replace("query.bias", "q_bias").replace("value.bias", "v_bias") for name in row.theirs
    )
    return [row._replace(theirs=names(row)) for row in rows]


def _encoder(prefix: str, published: bool = False) -> list[Row]:
    kernel, bias = dense("encoder/embed", f"{prefix}embeddings.patch_embeddings.projection")
    return [
        kernel._replace(form="clip_patch"),
        bias,
        *_block("encoder/block_{}", f"{prefix}encoder.layer", published),
        *norm("encoder/norm", f"{prefix}layernorm"),
    ]


def _decoder(published: bool = False) -> list[Row]:
    return [
        Row("decoder/mask_token", ("mask_token",), "same"),
        Row("decoder/embed/kernel", ("encoder_to_decoder.weight",), "dense"),
        *_block("decoder/block_{}", "decoder.decoder_layers", published),
        *norm("decoder/norm", "decoder.norm"),
        *dense("decoder/predict", "decoder.head"),
    ]


HEAD = [*norm("fc_norm", "fc_norm"), *dense("head", "classifier")]
READABLE = [[*_encoder("videomae."), *_decoder(), *HEAD], _encoder("")]
WRITTEN = {
    "VideoMAEForPreTraining": [*_encoder("videomae.", True), *_decoder(True)],
    "VideoMAEModel": _encoder("", True),
}
"""Class of transformers -> its table. Version 5 renames the biases of published files."""


def make() -> Layout:
    """Makes the layout: a folder that `from_pretrained` reads."""
    return Layout(
        readable=READABLE,
        networks="transformers' VideoMAE",
        package="transformers",
        class_token=False,
        choose=lambda model: WRITTEN[_kind(model)],
        describe=_files,
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
    name = found.name
    check_options_of_clips(options, name)
    if "num_frames" not in found.config:
        raise UserError(
            f"{name} has no config.json with num_frames next to it: the size of its clips is "
            "unknown, so give the whole folder"
        )
    known, (steps, side, _), channels = described(found), shape.patch, shape.channels
    width, depth = params["encoder/embed/bias"].size, blocks_of(params, "encoder")
    sizes = dict(hidden_size=width, num_hidden_layers=depth, patch_size=side, tubelet_size=steps)
    check_sizes(found.config, name, **sizes)
    image = (found.config["num_frames"], *known.get("image", (224, 224)), channels)
    heads = heads_of(known, options, width, name, moco=False)
    more = dict(class_tokens=0, positions="flat")
    hidden = params["encoder/block_0/mlp/fc1/bias"].size
    encoder = dict(width=width, depth=depth, heads=heads)
    mean, std = statistics_of(known, options, channels, name)
    args = dict(
        encoder=vit_spec(encoder, shape.patch, hidden, **more), pool="mean", mean=mean, std=std
    )
    if "decoder/mask_token" in params:
        tubes = math.prod(image[1:3]) // side**2
        args |= _decoder_args(found, params, known, options)
        args |= dict(mask="tube", mask_ratio=int(0.9 * tubes) / tubes)  # as its code rounds
        return Model(params, "mae", args, image)
    if "head/kernel" in params:
        return _classifier(params, args, image, shape, name)
    if "encoder/norm/scale" not in params:
        args["encoder"] = args["encoder"][:-1] + ", final_norm=False)"
    return Model(params, "tasks.encode", args, image)


def _decoder_args(found: Found, params, known: dict, options: Options) -> dict[str, Any]:
    if not known.get("target", "normalized") == "normalized":
        raise UserError(
            f"{found.name} predicts pixels that are not normalized, which is not supported: leave "
            "the decoder out with --encoder-only"
        )
    if "encoder/norm/scale" not in params:
        raise UserError(
            f"{found.name} has a decoder and no norm after the encoder (use_mean_pooling), which "
            "is not supported: leave the decoder out with --encoder-only"
        )
    heads = agreed("decoder-heads", known.get("decoder_heads"), options.decoder_heads, found.name)
    return dict(
        decoder_width=params["decoder/mask_token"].shape[-1],
        decoder_depth=blocks_of(params, "decoder"),
        decoder_heads=heads or DECODER_HEADS,
        decoder_positions="flat",
        decoder_embed_bias=False,
        target=TARGET,
    )


def _classifier(params, args: dict, image: tuple, shape: Shape, name: str) -> Model:
    """A classifier of the mean of the tokens, with trained positions that start as theirs."""
    if "fc_norm/scale" not in params:
        raise UserError(f"{name} classifies a single patch, which is not supported: --encoder-only")
    grid = tuple(n // side for n, side in zip(image[:-1], shape.patch, strict=True))
    params = params | {POSITIONS: flat_sincos(grid, params["encoder/embed/bias"].size)}
    args |= dict(classes=params["head/kernel"].shape[1], drop_path=0.0)
    return Model(params, "tasks.finetune", args, image)


def _kind(model: Model) -> str:
    """The class of transformers for a model.

    Raises:
        UserError: it is not VideoMAE.
    """
    network, args = build(model.args["encoder"], "models", Encoder), model.args
    fits = {
        "positions=flat": isinstance(network, ViT) and network.positions == "flat",
        "class_tokens=0": network.prefix == 0,
        "patches of a square side": len({*_sides(network)[1:]}) == 1,
    }
    decoder = "decoder/mask_token" in model.params
    if decoder:
        fits |= {
            "decoder_positions=flat": args.get("decoder_positions") == "flat",
            "decoder_embed_bias=False": not args.get("decoder_embed_bias", True),
            f"target={TARGET}": args["target"].replace("'", "") == TARGET,
        }
    for option, fit in fits.items():
        if not fit:
            raise UserError(f"the layout videomae needs {option}: use --format stablehlo")
    return "VideoMAEForPreTraining" if decoder else "VideoMAEModel"


def _sides(network: Any) -> tuple[int, ...]:
    return (network.patch,) * 3 if isinstance(network.patch, int) else network.patch


def _files(model: Model) -> dict[str, Any]:
    """config.json and preprocessor_config.json."""
    kind, network = _kind(model), build(model.args["encoder"], "models", Encoder)
    (frames, height, width, channels), (steps, side, _) = model.image, _sides(network)
    size = height if height == width else [height, width]
    mean, std = (each_channel(model.args[name], channels) for name in ("mean", "std"))
    config = dict(
        architectures=[kind],
        model_type="videomae",
        image_size=size,
        patch_size=side,
        num_channels=channels,
        num_frames=frames,
        tubelet_size=steps,
        hidden_size=network.width,
        num_hidden_layers=network.depth,
        num_attention_heads=network.heads,
        intermediate_size=int(network.width * network.mlp_ratio),
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        qkv_bias=True,
        use_mean_pooling="encoder/norm/scale" not in model.params,
        dtype="float32",
    )
    if kind == "VideoMAEForPreTraining":
        width = model.args["decoder_width"]
        config |= dict(
            decoder_hidden_size=width,
            decoder_num_hidden_layers=model.args["decoder_depth"],
            decoder_num_attention_heads=model.args["decoder_heads"],
            decoder_intermediate_size=4 * width,
            norm_pix_loss=True,
        )
        if channels == 3 and not np.allclose([mean, std], [IMAGENET_MEAN, IMAGENET_STD]):
            logger.warning("transformers computes its loss as if mean and std were ImageNet's")
    crop = model.image[1:3]
    of_frames = dict(size=dict(shortest_edge=max(crop)), resample=2, crop=crop)
    processor = written("VideoMAEImageProcessor", mean, std, **of_frames)
    return {"config.json": config, "preprocessor_config.json": processor}
