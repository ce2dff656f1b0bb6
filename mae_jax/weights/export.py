"""Export of weights: files that timm, transformers and the official MAE code read."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mae_jax.models.encoder import Encoder
from mae_jax.models.vit import ViT
from mae_jax.objectives import make_objective
from mae_jax.ops.patches import grid_of, patch_sides
from mae_jax.ops.posemb import with_prefix
from mae_jax.spec import build
from mae_jax.types import UserError
from mae_jax.weights import layouts
from mae_jax.weights.files import check_finite
from mae_jax.weights.layout import DECODER_POSITIONS, POSITIONS, Mapped, Shape, to_theirs
from mae_jax.weights.model import Model, pixel_target
from mae_jax.weights.runs import only
from mae_jax.weights.saving import fresh_folder, write_file


class Converted(NamedTuple):
    """A model in another layout."""

    arrays: dict[str, np.ndarray]
    """Their names -> arrays."""
    table: list[Mapped]
    """The table of names; 'theirs' is '(left over)' for arrays that the layout cannot hold."""
    notes: dict[str, Any]
    """Facts that the arrays do not contain, for the metadata of the file."""
    files: Mapping[str, Any] | None
    """JSON files of the folder, name -> content; None: the layout is one file."""


def write(
    model: Model,
    out: Path,
    layout: str,
    *,
    head: int | None = None,
    encoder_only: bool = False,
    image_size: tuple[int, int] | None = None,
) -> list[Mapped]:
    """Writes a model in another layout.

    Args:
        out: a file, .safetensors or .pth; for layouts such as 'hf' a folder.
        layout, head, encoder_only, image_size: see `convert`.

    Returns:
        The table of names; 'theirs' is '(left over)' for arrays that the layout cannot hold.

    Raises:
        UserError: the layout cannot hold such a model, or the file exists.
    """
    options = dict(head=head, encoder_only=encoder_only, image_size=image_size)
    made = convert(model, layout, **options)
    if made.files is None:
        write_file(out, made.arrays, made.notes)
        return made.table
    with fresh_folder(out) as folder:
        write_file(folder / "model.safetensors", made.arrays, made.notes)
        for name, content in made.files.items():
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    return made.table


def convert(
    model: Model,
    layout: str,
    *,
    head: int | None = None,
    encoder_only: bool = False,
    image_size: tuple[int, int] | None = None,
) -> Converted:
    """Converts a model to another layout.

    Args:
        layout: name of a layout in `layouts/`, or of a user's module.
        head: number of the head of a linear probe, from 0.
        encoder_only: leave decoder and head out.
        image_size: (height, width) of the training images, if the run does not record it.

    Raises:
        UserError: the layout cannot hold such a model.
    """
    chosen = layouts.find(layout)
    check_finite(model.params, "the run")
    if encoder_only and head is not None:
        raise UserError(f"--head {head} and --encoder-only exclude each other: choose one")
    if encoder_only:
        encoder = {k: v for k, v in model.params.items() if k.startswith("encoder/")}
        model = model._replace(params=encoder)
    else:
        model = _linear(only(model, head), model.extra)
    network = build(model.args["encoder"], "models", Encoder)
    if "mean" not in model.args:
        raise UserError(f"the encoder of {model.method} reads no normalized pixels: no layout fits")
    _check_encoder(model, network, chosen, layout)
    _check_axes(model, chosen.axes, layout)
    plain = chosen.axes == 2 and chosen.encoder == "vit"
    if plain:
        _check_plain(model, network)
    size = _image_size(model, image_size) if chosen.axes == 2 else model.image[:-1]
    sides = patch_sides(network.patch, chosen.axes)
    channels = model.params["encoder/embed/kernel"].shape[0] // math.prod(sides)
    model = model._replace(image=(*size, channels))
    rows = chosen.choose(model) if chosen.choose else chosen.readable[0]
    model = chosen.prepare(model) if chosen.prepare else model
    params = model.params
    if plain:
        params = _with_positions(params, grid_of(size, network.patch), network.width)
    arrays, table = to_theirs(params, rows, Shape(sides, channels))
    used = {row.ours for row in table}
    left = [path for path in params if path not in used]
    if left and not chosen.partial:
        raise UserError(
            f"the layout {layout} cannot hold {left[0]} of {model.method}: use --encoder-only"
        )
    table += [Mapped(path, "(left over)", params[path].shape) for path in left]
    files = chosen.describe(model) if chosen.describe else None
    notes = _notes(model, network) if plain or files is None else {}
    return Converted(arrays, table, notes, files)


def _check_encoder(model: Model, network: Encoder, chosen: layouts.Layout, layout: str) -> None:
    """Raises UserError unless the encoder of a model is of the layout's kind."""
    if not isinstance(network, ViT):
        raise UserError(f"{model.args['encoder']}: these layouts hold only vision transformers")
    kind = network.architecture[0]
    if kind != chosen.encoder:
        known = {name: layouts.find(name) for name in layouts.names()}
        fitting = [n for n, other in known.items() if other.package and other.encoder == kind]
        raise UserError(
            f"{model.args['encoder']}: the layout {layout} holds encoders of the kind "
            f"{chosen.encoder} alone: choose --format {', '.join(fitting) or 'stablehlo'}"
        )
    if "encoder/mask_token" in model.params:
        raise UserError("these layouts cannot hold an encoder with mask tokens in its input")


def _check_axes(model: Model, axes: int, layout: str) -> None:
    """Raises UserError unless the images of a run have these spatial axes."""
    if model.image and len(model.image) != axes + 1:
        raise UserError(
            f"the run's images are {list(model.image)}, and the layout {layout} is for {axes}-D "
            "images: use --format stablehlo"
        )
    if not model.image and axes != 2:
        raise UserError(f"the run does not record the size of its images: {layout} needs it")


def _check_plain(model: Model, network: ViT) -> None:
    """Raises UserError for vision transformers that no layout of 'vit' of two axes holds."""
    if network.class_tokens != 1 or not isinstance(network.patch, int):
        raise UserError(
            f"{model.args['encoder']}: these layouts need one class token and square patches"
        )
    decoder = "decoder/mask_token" in model.params
    kinds = {network.positions, model.args.get("decoder_positions", "sincos") * decoder} - {""}
    if kinds != {"sincos"} or network.spacing:
        raise UserError(
            f"these layouts need positions=sincos, without a spacing, and the run has "
            f"{', '.join(sorted(kinds))}: use --format stablehlo"
        )


def _linear(model: Model, extra: dict[str, np.ndarray]) -> Model:
    """The model with the head as a linear layer of its predictions; without a head unchanged.

    Args:
        extra: arrays of the run's state, with the constants of the objective.

    Raises:
        UserError: the predictions are no linear layer.
    """
    names = [f"head/{leaf}" for leaf in ("kernel", "bias")]
    if not {*names} <= model.params.keys() or "classes" not in model.args:
        return model
    spec, start = model.args.get("objective", "classes"), "objective/"
    constants = {k.removeprefix(start): array for k, array in extra.items() if k.startswith(start)}
    head = [model.params[name].astype(np.float64) for name in names]
    layer = make_objective(spec, model.args["classes"]).linear(*head, constants)
    if layer is None:
        raise UserError(
            f"these layouts cannot hold the head of objective {spec!r}: use --encoder-only, or "
            "--format stablehlo"
        )
    arrays = (array.astype(np.float32) for array in layer)
    return model._replace(params=model.params | dict(zip(names, arrays, strict=True)))


def _image_size(model: Model, given: tuple[int, int] | None) -> tuple[int, int]:
    known = model.image[:2] if model.image else None
    if known is None and given is None:
        raise UserError("the run does not record the size of its images: pass --image-size H,W")
    if known is not None and given is not None and known != given:
        raise UserError(f"--image-size {given}: the run's images are {known[0]} x {known[1]}")
    return known or given


def _with_positions(params: dict, grid: tuple[int, int], width: int) -> dict[str, np.ndarray]:
    """Adds the fixed position tables, which we compute and other layouts store."""
    params = {POSITIONS: with_prefix(grid, width), **params}
    if len(params[POSITIONS]) != 1 + grid[0] * grid[1]:
        count = len(params[POSITIONS]) - 1
        raise UserError(f"the position table has {count} patches, and the images {grid}")
    if "decoder/mask_token" in params:
        width = params["decoder/mask_token"].shape[-1]
        params[DECODER_POSITIONS] = with_prefix(grid, width)
    return params


def _notes(model: Model, network: ViT) -> dict[str, Any]:
    """Metadata that the arrays do not contain, for a later import."""
    args = model.args
    notes = dict(
        heads=network.heads, image=list(model.image[:-1]), mean=args["mean"], std=args["std"]
    )
    notes["pool"] = args["pool"]
    objective = args.get("objective", "classes").partition("(")[0]
    if "head/kernel" in model.params and objective != "classes":
        notes["objective"] = objective
    if "decoder/mask_token" in model.params:
        notes |= dict(decoder_heads=args["decoder_heads"], mask_ratio=args["mask_ratio"])
        target = pixel_target(model, frames=len(model.image) == 4)
        notes["target"] = "normalized" if target.normalize else "pixels"
    return notes
