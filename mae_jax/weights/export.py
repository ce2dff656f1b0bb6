"""Weights out: files that timm, transformers and the official code of MAE read."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.models.vit import ViT
from mae_jax.ops.patches import grid_of
from mae_jax.ops.posemb import with_prefix
from mae_jax.spec import build, check_choice
from mae_jax.targets.pixels import Pixels
from mae_jax.types import UserError
from mae_jax.weights import names
from mae_jax.weights.files import check_finite
from mae_jax.weights.layout import Mapped, Shape, to_theirs
from mae_jax.weights.model import Model
from mae_jax.weights.runs import only
from mae_jax.weights.saving import fresh_folder, write_file

logger = logging.getLogger(__name__)

LAYOUTS = ("timm", "hf", "mae")


def write(
    model: Model,
    out: Path,
    layout: str,
    *,
    head: int | None = None,
    encoder_only: bool = False,
    image_size: tuple[int, int] | None = None,
) -> list[Mapped]:
    """Writes a model as others lay it out.

    Args:
        out: a file, .safetensors or .pth; for 'hf' a folder.
        layout: 'timm' (an encoder, or a classifier), 'mae' (the official code's: with the decoder)
            or 'hf' (transformers).
        head: which one of a probe's, from 0.
        encoder_only: leave decoder and head out.
        image_size: of the images it was trained on, where that is not known.

    Returns:
        What became what; 'theirs' is '(left over)' for what the layout has no place for.

    Raises:
        UserError: the layout has no place for such a model, or the file is there already.
    """
    check_choice("format", layout, LAYOUTS)
    check_finite(model.params, "the run")
    if encoder_only and head is not None:
        raise UserError(f"--head {head} is not for --encoder-only: choose one of them")
    if encoder_only:
        encoder = {k: v for k, v in model.params.items() if k.startswith("encoder/")}
        model = model._replace(params=encoder)
    else:
        model = only(model, head)
    network = build(model.args["encoder"], "models")
    if "mean" not in model.args:
        raise UserError(f"the encoder of {model.method} sees no normalized pixels: no layout fits")
    if not isinstance(network, ViT):
        raise UserError(f"{model.args['encoder']}: these layouts are of vision transformers")
    if "encoder/mask_token" in model.params:
        raise UserError("an encoder that sees mask tokens has no place in these layouts")
    if network.class_tokens != 1 or not isinstance(network.patch, int):
        raise UserError(
            f"{model.args['encoder']}: these layouts have one class token and square patches"
        )
    channels = model.params["encoder/embed/kernel"].shape[0] // network.patch**2
    size = _image_size(model, image_size)
    rows, kind = _rows(model, layout)
    params = _with_positions(model.params, grid_of(size, network.patch), network.width)
    arrays, table = to_theirs(params, rows, Shape(network.patch, channels))
    used = {row.ours for row in table}
    left = [path for path in params if path not in used]
    if left and layout != "timm":
        raise UserError(f"{layout} has no place for {left[0]} of {model.method}: --encoder-only")
    table += [Mapped(path, "(left over)", params[path].shape) for path in left]
    notes = _notes(model, network, size)
    if layout == "hf":
        if size[0] != size[1] and kind == "BeitForImageClassification":
            raise UserError(
                "transformers takes square images only where the mean of the tokens is classified "
                f"(BEiT), and these are {size[0]} x {size[1]}: --format timm"
            )
        if size[0] != size[1] and kind != "ViTForImageClassification":
            logger.warning("transformers reads this, but runs %s on square images only", kind)
        with fresh_folder(out) as folder:
            write_file(folder / "model.safetensors", arrays, notes)
            _write_json(folder / "config.json", _hf_config(model, network, kind, size, channels))
            _write_json(folder / "preprocessor_config.json", _hf_processor(model, size, channels))
    else:
        write_file(out, arrays, notes)
    return table


def _image_size(model: Model, given: tuple[int, int] | None) -> tuple[int, int]:
    known = model.image[:2] if model.image else None
    if known is None and given is None:
        raise UserError("the size of the run's images is not known: give --image-size H,W")
    if known is not None and given is not None and known != given:
        raise UserError(f"--image-size {given}: the run's images are {known[0]} x {known[1]}")
    return known or given


def _rows(model: Model, layout: str):
    """The table of a layout that fits, and for Hugging Face what model it is."""
    classifier, decoder = "head/kernel" in model.params, "decoder/mask_token" in model.params
    if layout != "hf":
        return (names.MAE if layout == "mae" else names.TIMM), layout
    if decoder:
        return names.HF_MAE, "ViTMAEForPreTraining"
    if not classifier and "encoder/norm/scale" not in model.params:
        raise UserError(
            "an encoder that was tuned with pool=mean has no last norm, which transformers' needs: "
            "leave out --encoder-only"
        )
    if not classifier:
        return names.HF_ENCODER, "ViTMAEModel"
    if model.args["pool"] == "cls":
        return names.HF_CLASSIFIER, "ViTForImageClassification"
    if "fc_norm/scale" not in model.params:
        raise UserError(
            "transformers has no classifier of the mean of tokens after the norm: --format timm"
        )
    return names.HF_MEAN, "BeitForImageClassification"


def _with_positions(params: dict, grid: tuple[int, int], width: int) -> dict[str, np.ndarray]:
    """With the tables that are computed here, and stored there."""
    params = {names.POSITIONS: with_prefix(grid, width), **params}
    if len(params[names.POSITIONS]) != 1 + grid[0] * grid[1]:
        count = len(params[names.POSITIONS]) - 1
        raise UserError(f"the positions are of {count} patches, and images have {grid}")
    if "decoder/mask_token" in params:
        width = params["decoder/mask_token"].shape[-1]
        params[names.DECODER_POSITIONS] = with_prefix(grid, width)
    return params


def _notes(model: Model, network: ViT, size: tuple[int, int]) -> dict[str, Any]:
    """What the arrays do not say, for our own reading."""
    args = model.args
    notes = dict(heads=network.heads, image=list(size), mean=args["mean"], std=args["std"])
    notes["pool"] = args["pool"]
    if "decoder/mask_token" in model.params:
        notes |= dict(decoder_heads=args["decoder_heads"], mask_ratio=args["mask_ratio"])
        notes["target"] = "normalized" if _pixels(model).normalize else "pixels"
    return notes


def _pixels(model: Model) -> Pixels:
    """The target of a masked autoencoder, which must be pixels in these layouts."""
    target = build(model.args["target"], "targets")
    if not isinstance(target, Pixels):
        raise UserError(f"a decoder of {model.args['target']} has no place: use --encoder-only")
    return target


def _hf_config(model: Model, network: ViT, kind: str, size, channels: int) -> dict[str, Any]:
    """config.json of transformers."""
    types = {"ViTForImageClassification": "vit", "BeitForImageClassification": "beit"}
    config: dict[str, Any] = dict(
        architectures=[kind],
        model_type=types.get(kind, "vit_mae"),
        hidden_size=network.width,
        num_hidden_layers=network.depth,
        num_attention_heads=network.heads,
        intermediate_size=int(network.width * network.mlp_ratio),
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        image_size=size[0] if size[0] == size[1] else list(size),
        patch_size=network.patch,
        num_channels=channels,
        qkv_bias=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype="float32",
    )
    if kind == "ViTMAEForPreTraining":
        width = model.args["decoder_width"]
        config |= dict(
            decoder_hidden_size=width,
            decoder_num_hidden_layers=model.args["decoder_depth"],
            decoder_num_attention_heads=model.args["decoder_heads"],
            decoder_intermediate_size=4 * width,
            mask_ratio=model.args["mask_ratio"],
            norm_pix_loss=_pixels(model).normalize,
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
    return config


def _hf_processor(model: Model, size: tuple[int, int], channels: int) -> dict[str, Any]:
    """preprocessor_config.json of transformers: resize, to [0, 1], normalize."""
    every = lambda values: [float(v) for v in values] * (channels if len(values) == 1 else 1)
    return dict(
        image_processor_type="ViTImageProcessor",
        do_resize=True,
        size=dict(height=size[0], width=size[1]),
        resample=3,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=every(model.args["mean"]),
        image_std=every(model.args["std"]),
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
