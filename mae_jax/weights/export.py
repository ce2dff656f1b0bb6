"""Weights out: files that timm, transformers and the official code of MAE read."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.models.vit import ViT
from mae_jax.ops.patches import grid_of
from mae_jax.ops.posemb import with_prefix
from mae_jax.spec import build
from mae_jax.types import UserError
from mae_jax.weights import layouts
from mae_jax.weights.files import check_finite
from mae_jax.weights.layout import DECODER_POSITIONS, POSITIONS, Mapped, Shape, to_theirs
from mae_jax.weights.model import Model, pixel_target
from mae_jax.weights.runs import only
from mae_jax.weights.saving import fresh_folder, write_file


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
        out: a file, .safetensors or .pth; for layouts like 'hf' a folder.
        layout: the name of one in `layouts/`, or of a user's.
        head: which one of a probe's, from 0.
        encoder_only: leave decoder and head out.
        image_size: of the images it was trained on, where that is not known.

    Returns:
        What became what; 'theirs' is '(left over)' for what the layout has no place for.

    Raises:
        UserError: the layout has no place for such a model, or the file is there already.
    """
    chosen = layouts.find(layout)
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
    if model.image and len(model.image) != 3:
        raise UserError(
            f"the run's images are {list(model.image)}, and these layouts are of 2-D images: "
            "--format stablehlo takes any"
        )
    if "encoder/mask_token" in model.params:
        raise UserError("an encoder that sees mask tokens has no place in these layouts")
    if network.class_tokens != 1 or not isinstance(network.patch, int):
        raise UserError(
            f"{model.args['encoder']}: these layouts have one class token and square patches"
        )
    channels = model.params["encoder/embed/kernel"].shape[0] // network.patch**2
    size = _image_size(model, image_size)
    model = model._replace(image=(*size, channels))
    rows = chosen.choose(model) if chosen.choose else chosen.readable[0]
    params = _with_positions(model.params, grid_of(size, network.patch), network.width)
    arrays, table = to_theirs(params, rows, Shape(network.patch, channels))
    used = {row.ours for row in table}
    left = [path for path in params if path not in used]
    if left and not chosen.partial:
        raise UserError(f"{layout} has no place for {left[0]} of {model.method}: --encoder-only")
    table += [Mapped(path, "(left over)", params[path].shape) for path in left]
    notes = _notes(model, network)
    if chosen.describe is None:
        write_file(out, arrays, notes)
        return table
    files = chosen.describe(model)
    with fresh_folder(out) as folder:
        write_file(folder / "model.safetensors", arrays, notes)
        for name, content in files.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    return table


def _image_size(model: Model, given: tuple[int, int] | None) -> tuple[int, int]:
    known = model.image[:2] if model.image else None
    if known is None and given is None:
        raise UserError("the size of the run's images is not known: give --image-size H,W")
    if known is not None and given is not None and known != given:
        raise UserError(f"--image-size {given}: the run's images are {known[0]} x {known[1]}")
    return known or given


def _with_positions(params: dict, grid: tuple[int, int], width: int) -> dict[str, np.ndarray]:
    """With the tables that are computed here, and stored there."""
    params = {POSITIONS: with_prefix(grid, width), **params}
    if len(params[POSITIONS]) != 1 + grid[0] * grid[1]:
        count = len(params[POSITIONS]) - 1
        raise UserError(f"the positions are of {count} patches, and images have {grid}")
    if "decoder/mask_token" in params:
        width = params["decoder/mask_token"].shape[-1]
        params[DECODER_POSITIONS] = with_prefix(grid, width)
    return params


def _notes(model: Model, network: ViT) -> dict[str, Any]:
    """What the arrays do not say, for our own reading."""
    args = model.args
    notes = dict(
        heads=network.heads, image=list(model.image[:2]), mean=args["mean"], std=args["std"]
    )
    notes["pool"] = args["pool"]
    if "decoder/mask_token" in model.params:
        notes |= dict(decoder_heads=args["decoder_heads"], mask_ratio=args["mask_ratio"])
        notes["target"] = "normalized" if pixel_target(model).normalize else "pixels"
    return notes
