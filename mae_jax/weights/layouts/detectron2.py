"""detectron2's Mask R-CNN on ViTDet (arXiv 2203.16527), and its cascade; read, not written. There
background is the last class, too, and anchors are in the order of ours; boxes are coded as (x, y,
width, height), and the box head flattens features [C, rows, columns].
"""

import math
from typing import Any

import numpy as np

from mae_jax.models import vitdet
from mae_jax.models.roi_heads import BOX_SIDE
from mae_jax.models.vit import SIZES
from mae_jax.spec import arguments
from mae_jax.types import UserError
from mae_jax.weights.heads import agreed
from mae_jax.weights.infer import statistics_of
from mae_jax.weights.layout import POSITIONS, Form, Row, Shape, dense, norm
from mae_jax.weights.layouts import Layout, Rows, timm
from mae_jax.weights.model import Found, Model, Options
from mae_jax.weights.processor import Images

BACKBONE, RPN, HEADS = "backbone.net", "proposal_generator.rpn_head", "roi_heads"


def _flattened(weight: np.ndarray) -> np.ndarray:
    """[D, C * rows * columns] to [rows * columns * C, D]."""
    if weight.shape[1] % BOX_SIDE**2:
        raise UserError(
            f"{HEADS}.box_head has {weight.shape[1]} inputs, not maps of {BOX_SIDE} x {BOX_SIDE}: "
            "the file holds another model"
        )
    weight = weight.reshape(len(weight), -1, BOX_SIDE, BOX_SIDE)  # [D, C, rows, columns]
    return weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))


def _point(weight: np.ndarray) -> np.ndarray:
    """[D, C, 1, 1] to [D, C]."""
    if weight.shape[2:] != (1, 1):
        raise UserError(
            f"a convolution has shape {list(weight.shape)}, and 1 x 1 is expected: the file holds "
            "another model"
        )
    return weight[:, :, 0, 0]


def _codes(array: np.ndarray) -> np.ndarray:
    """[4 n, ...], n times (x, y, width, height), to [4 n, ...], n times (y, x, height, width)."""
    if len(array) % 4:
        raise UserError(f"{len(array)} numbers are no codes of boxes: the file is of another model")
    return array.reshape(-1, 4, *array.shape[1:])[:, [1, 0, 3, 2]].reshape(array.shape)


CONV = Form(lambda a: a.transpose(2, 3, 1, 0), axes=4)
"""[D, C, rows, columns] to [rows, columns, C, D]."""
POINT = Form(lambda a: _point(a).T, axes=4)
"""A convolution of 1 x 1 as a linear layer: [D, C, 1, 1] to [C, D]."""
TRANSPOSED = Form(lambda a: a.transpose(0, 2, 3, 1).reshape(len(a), -1), axes=4)
"""A transposed convolution of 2 x 2 with stride 2, in which no kernel is flipped: [C, D, rows,
columns] to [C, rows * columns * D]."""
FLATTENED = Form(_flattened, axes=2)
CODES = Form(lambda a: _codes(a).T, axes=2)
POINT_CODES = Form(lambda a: _codes(_point(a)).T, axes=4)
CODES_BIAS = Form(_codes, axes=1)


def _conv(ours: str, theirs: str) -> list[Row]:
    """A convolution without bias and a LayerNorm."""
    weight = Row(f"{ours}/conv/kernel", (f"{theirs}.weight",), CONV)
    return [weight, *norm(f"{ours}/norm", f"{theirs}.norm")]


def _layer(
    ours: str, theirs: str, form: Form, *, bias: str | Form = "same", kernel: str = "kernel"
):
    """A layer with a bias."""
    return [
        Row(f"{ours}/{kernel}", (f"{theirs}.weight",), form),
        Row(f"{ours}/bias", (f"{theirs}.bias",), bias),
    ]


def _encoder() -> list[Row]:
    return [
        Row(POSITIONS, (f"{BACKBONE}.pos_embed",), "table"),
        Row("encoder/embed/kernel", (f"{BACKBONE}.patch_embed.proj.weight",), "patch"),
        Row("encoder/embed/bias", (f"{BACKBONE}.patch_embed.proj.bias",), "same"),
        *timm.block("encoder/block_{}", f"{BACKBONE}.blocks.{{}}"),
        *(
            Row(f"encoder/block_{{}}/attention/relative_{ours}", (name,), Form(lambda a: a, axes=2))
            for ours, name in (
                ("rows", f"{BACKBONE}.blocks.{{}}.attn.rel_pos_h"),
                ("columns", f"{BACKBONE}.blocks.{{}}.attn.rel_pos_w"),
            )
        ),
    ]


def _pyramid() -> list[Row]:
    """In the sequence of a level, scaling comes before the two convolutions."""
    up = lambda ours, theirs: _layer(
        f"pyramid/{ours}", f"backbone.{theirs}", TRANSPOSED, kernel="fc/kernel"
    )
    rows = [
        *up("up_0a", "simfp_2.0"),
        *norm("pyramid/norm_0", "backbone.simfp_2.1"),
        *up("up_0b", "simfp_2.3"),
        *up("up_1", "simfp_3.0"),
    ]
    for level, first in enumerate((4, 1, 0, 1)):
        stage = f"backbone.simfp_{level + 2}"
        rows += _conv(f"pyramid/lateral_{level}", f"{stage}.{first}")
        rows += _conv(f"pyramid/output_{level}", f"{stage}.{first + 1}")
    return rows


def _heads(number: str) -> list[Row]:
    """The proposals, the box heads with this part of their names, and the mask head."""
    ours = "box_head_{}" if number else "box_head_0"
    box, last = f"{HEADS}.box_head{number}", f"{HEADS}.box_predictor{number}"
    rows = [
        *_layer("rpn/conv_0", f"{RPN}.conv.conv0", CONV),
        *_layer("rpn/conv_1", f"{RPN}.conv.conv1", CONV),
        *_layer("rpn/score", f"{RPN}.objectness_logits", POINT),
        *_layer("rpn/box", f"{RPN}.anchor_deltas", POINT_CODES, bias=CODES_BIAS),
        *_layer(f"{ours}/fc", f"{box}.fc1", FLATTENED),
        *dense(f"{ours}/score", f"{last}.cls_score"),
        *_layer(f"{ours}/box", f"{last}.bbox_pred", CODES, bias=CODES_BIAS),
        *_layer("mask_head/up", f"{HEADS}.mask_head.deconv", TRANSPOSED, kernel="fc/kernel"),
        *_layer("mask_head/mask", f"{HEADS}.mask_head.predictor", POINT),
    ]
    for i in range(4):
        rows += _conv(f"{ours}/conv_{i}", f"{box}.conv{i + 1}")
        rows += _conv(f"mask_head/conv_{i}", f"{HEADS}.mask_head.mask_fcn{i + 1}")
    return rows


READABLE = [[*_encoder(), *_pyramid(), *_heads(number)] for number in ("", ".{}")]


def make() -> Layout:
    """Makes the layout, for import alone."""
    return Layout(
        readable=READABLE,
        networks="detectron2's ViTDet",
        class_token=False,
        choose=_not_written,
        infer=infer,
    )


def _not_written(model: Model) -> Rows:
    raise UserError("the layout detectron2 is only read: choose another --format")


def infer(found: Found, params: dict[str, np.ndarray], shape: Shape, options: Options) -> Model:
    """The detector of arrays in our names, or its encoder. Sizes follow from the shapes.

    Args:
        found: the contents of the file.
        params: path -> array.
        shape: of a patch.
        options: the user's.

    Raises:
        UserError: the detector is none of ours, or an option is for others.
    """
    name = found.name
    for option in ("decoder_heads", "image_size", "positions", "target"):
        if options._asdict()[option] is not None:
            raise UserError(f"--{option.replace('_', '-')} is not for detectors: {name} is one")
    params, side, channels = dict(params), shape.patch[0], shape.channels
    table = params[POSITIONS]
    grid = math.isqrt(len(table))  # with or without the position of a class token
    if len(table) - grid**2 not in (0, 1):
        raise UserError(f"{name} has {len(table)} positions, not those of square images")
    params[POSITIONS] = table[len(table) - grid**2 :]
    encoder, size = _encoder_of(name, params, side, grid, options)
    mean, std = statistics_of({}, options, channels, name)
    args: dict[str, Any] = dict(encoder=encoder, mean=mean, std=std)
    image = (size, size, channels)
    transform = Images(f"large_scale_jitter({size}, scale=(1, 1))", "")
    if options.encoder_only:
        return Model(params, "tasks.encode", args | dict(pool="mean"), image, images=transform)
    args |= dict(
        classes=params["box_head_0/score/bias"].size - 1,
        size=size,
        masks="mask_head/mask/bias" in params,
        cascade="box_head_1/score/bias" in params,
        width=params["pyramid/output_0/norm/bias"].size,
        hidden=params["box_head_0/fc/bias"].size,
    )
    return Model(params, "tasks.detect", args, image, images=transform)


def _encoder_of(
    name: str, params: dict[str, np.ndarray], side: int, grid: int, options: Options
) -> tuple[str, int]:
    """The spec of the encoder, and the side of its images in pixels."""
    depth = len({path.split("/")[1] for path in params if path.startswith("encoder/block_")})
    table = lambda i: params[f"encoder/block_{i}/attention/relative_rows"]
    grids = [(len(table(i)) + 1) // 2 for i in range(depth)]
    # Where all are equal, a window is as large as the image.
    wide = [i for i in range(depth) if max(grids) == grids[i] > min(grids)]
    width, channels = params["encoder/embed/bias"].size, table(0).shape[1]
    heads = agreed("heads", width // channels, options.heads, name)
    shape = dict(width=width, depth=depth, heads=heads)
    hidden = params["encoder/block_0/mlp/fc1/bias"].size
    sizes = [size for size, known in SIZES.items() if known == shape]
    defaults = arguments("vitdet", "models", {})
    found = dict(
        patch=side,
        mlp_ratio=hidden / width,
        window=min(grids),
        global_blocks=len(wide),
        position_grid=grid,
    )
    expected = [*vitdet.make(**shape, global_blocks=len(wide)).global_indices]
    if wide != expected:
        raise UserError(
            f"{name} has global attention in the blocks {wide}, and ours is in {expected}: only "
            "equal distances are supported"
        )
    listed = sizes[:1] or [f"{key}={value}" for key, value in shape.items()]
    listed += [f"{k}={v}" for k, v in found.items() if k == "patch" or v != defaults[k]]
    return f"vitdet({', '.join(listed)})", side * max(grids)
