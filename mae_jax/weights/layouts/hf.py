"""Hugging Face transformers: ViTMAE, ViT and BEiT, with the names of their files on disk. Version 5
writes the decoder's blocks under another name, and reads both. BEiT classifies the norm of the mean
over the patches, where ViT uses the class token. Its keys have no bias: the softmax cancels one.
"""

import logging
from typing import Any

from mae_jax.models.encoder import Encoder
from mae_jax.spec import build
from mae_jax.types import UserError
from mae_jax.weights.described import PROBLEMS
from mae_jax.weights.layout import DECODER_POSITIONS, POSITIONS, Row, dense, norm
from mae_jax.weights.layouts import Layout
from mae_jax.weights.model import Model, pixel_target
from mae_jax.weights.processor import each_channel, written

logger = logging.getLogger(__name__)


ON_DISK = [f"attention.attention.{part}" for part in ("query", "key", "value")]
ON_DISK += ["attention.output.dense", "intermediate.dense", "output.dense"]
IN_MEMORY = [f"attention.{part}_proj" for part in "qkvo"] + ["mlp.fc1", "mlp.fc2"]
"""The layers of a block (queries, keys, values, proj, fc1, fc2) in files, and in the modules of
version 5, whose names some files have too."""


def block(ours: str, theirs: str, names: list[str], key_bias: bool = True) -> list[Row]:
    """Rows of a transformer block.

    Args:
        ours, theirs: paths of the block.
        names: `ON_DISK` or `IN_MEMORY`.
        key_bias: whether their keys have a bias.
    """
    query, key, value, proj, fc1, fc2 = (f"{theirs}.{{}}.{name}" for name in names)
    weights, biases = dense(f"{ours}/attention/qkv", query, key, value)
    if not key_bias:
        biases = biases._replace(theirs=(biases.theirs[0], "", biases.theirs[2]))
    return [
        *norm(f"{ours}/norm1", f"{theirs}.{{}}.layernorm_before"),
        weights,
        biases,
        *dense(f"{ours}/attention/proj", proj),
        *norm(f"{ours}/norm2", f"{theirs}.{{}}.layernorm_after"),
        *dense(f"{ours}/mlp/fc1", fc1),
        *dense(f"{ours}/mlp/fc2", fc2),
    ]


def _encoder(prefix: str, names: list[str] = ON_DISK, key_bias: bool = True) -> list[Row]:
    blocks = f"{prefix}layers" if names is IN_MEMORY else f"{prefix}encoder.layer"
    embeddings = f"{prefix}embeddings"
    kernel, bias = dense("encoder/embed", f"{embeddings}.patch_embeddings.projection")
    return [
        Row("encoder/cls_token", (f"{embeddings}.cls_token",), "same"),
        Row(POSITIONS, (f"{embeddings}.position_embeddings",), "table"),
        kernel._replace(form="patch"),
        bias,
        *block("encoder/block_{}", blocks, names, key_bias),
        *norm("encoder/norm", f"{prefix}layernorm"),
    ]


def _decoder(blocks: str = "decoder_layers", names: list[str] = ON_DISK) -> list[Row]:
    return [
        Row("decoder/mask_token", ("decoder.mask_token",), "same"),
        Row(DECODER_POSITIONS, ("decoder.decoder_pos_embed",), "table"),
        *dense("decoder/embed", "decoder.decoder_embed"),
        *block("decoder/block_{}", f"decoder.{blocks}", names),
        *norm("decoder/norm", "decoder.decoder_norm"),
        *dense("decoder/predict", "decoder.decoder_pred"),
    ]


HEAD = dense("head", "classifier")
MAE = [*_encoder("vit."), *_decoder()]
MEAN = [
    *(r for r in _encoder("beit.", key_bias=False) if not r.ours.startswith("encoder/norm/")),
    *norm("fc_norm", "beit.pooler.layernorm"),
    *HEAD,
]
WRITTEN = {
    "ViTMAEForPreTraining": ("vit_mae", MAE),
    "ViTMAEModel": ("vit_mae", _encoder("")),
    "ViTForImageClassification": ("vit", [*_encoder("vit."), *HEAD]),
    "BeitForImageClassification": ("beit", MEAN),
}
"""Class of transformers -> its model_type and table."""
READABLE = [
    [*MAE, *HEAD],
    [*_encoder("vit."), *_decoder("decoder_encoder.layer")],
    [*_encoder("vit.", IN_MEMORY), *_decoder(names=IN_MEMORY), *HEAD],
    _encoder(""),
    _encoder("", IN_MEMORY),
    MEAN,
]


def make() -> Layout:
    """Makes the layout: a folder that `from_pretrained` reads."""
    return Layout(
        readable=READABLE,
        networks="transformers' ViT, ViTMAE or BEiT",
        package="transformers",
        choose=lambda model: WRITTEN[_kind(model)][1],
        describe=_files,
    )


def _kind(model: Model) -> str:
    """The class of transformers for a model."""
    if "decoder/mask_token" in model.params:
        return "ViTMAEForPreTraining"
    if "head/kernel" not in model.params:
        if "encoder/norm/scale" in model.params:
            return "ViTMAEModel"
        raise UserError(
            "an encoder fine-tuned with pool=mean has no final norm, and transformers needs one: "
            "leave out --encoder-only"
        )
    if model.args["pool"] == "cls":
        return "ViTForImageClassification"
    if "fc_norm/scale" in model.params:
        return "BeitForImageClassification"
    raise UserError(
        "transformers has no classifier with pool=mean after the final norm: use --format timm"
    )


def _files(model: Model) -> dict[str, Any]:
    """config.json and preprocessor_config.json."""
    kind, (height, width, _) = _kind(model), model.image
    if height != width and kind == "BeitForImageClassification":
        raise UserError(
            "transformers' BEiT, the classifier with pool=mean, needs square images, and these are "
            f"{height} x {width}: use --format timm"
        )
    if height != width and kind != "ViTForImageClassification":
        logger.warning("transformers loads this, but runs %s on square images only", kind)
    return {"config.json": _config(model, kind), "preprocessor_config.json": _processor(model)}


def _config(model: Model, kind: str) -> dict[str, Any]:
    network = build(model.args["encoder"], "models", Encoder)
    height, width, channels = model.image
    config: dict[str, Any] = dict(
        architectures=[kind],
        model_type=WRITTEN[kind][0],
        hidden_size=network.width,
        num_hidden_layers=network.depth,
        num_attention_heads=network.heads,
        intermediate_size=int(network.width * network.mlp_ratio),
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        image_size=height if height == width else [height, width],
        patch_size=network.patch,
        num_channels=channels,
        qkv_bias=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype="float32",
    )
    if kind == "ViTMAEForPreTraining":
        config |= dict(
            decoder_hidden_size=model.args["decoder_width"],
            decoder_num_hidden_layers=model.args["decoder_depth"],
            decoder_num_attention_heads=model.args["decoder_heads"],
            decoder_intermediate_size=4 * model.args["decoder_width"],
            mask_ratio=model.args["mask_ratio"],
            norm_pix_loss=pixel_target(model).normalize,
        )
    if kind == "BeitForImageClassification":
        config |= dict(
            use_mean_pooling=True,
            use_absolute_position_embeddings=True,
            use_relative_position_bias=False,
            use_shared_relative_position_bias=False,
            use_mask_token=False,
            layer_scale_init_value=0.0,
            drop_path_rate=0.0,
        )
    if "head/kernel" in model.params:
        labels = [f"LABEL_{i}" for i in range(model.params["head/kernel"].shape[1])]
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
        objective = model.args.get("objective", "classes").partition("(")[0]
        if objective != "classes":
            config["problem_type"] = PROBLEMS.get(objective)
    return config


def _processor(model: Model) -> dict[str, Any]:
    """Resize, rescale to [0, 1], normalize."""
    height, width, channels = model.image
    mean, std = (each_channel(model.args[name], channels) for name in ("mean", "std"))
    size = dict(height=height, width=width)
    return written("ViTImageProcessor", mean, std, size=size, resample=3)
