"""Infers the model from a checkpoint. Sizes and pooling follow from names and shapes of the arrays;
the rest comes from accompanying configs (`described.py`), or from the usual values, with a warning.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mae_jax.models.vit import SIZES
from mae_jax.objectives import Objective, make_objective
from mae_jax.ops.norm import EPSILON
from mae_jax.ops.pixels import IMAGENET_MEAN, IMAGENET_STD, check_statistics
from mae_jax.ops.posemb import with_prefix
from mae_jax.spec import check_choice
from mae_jax.types import UserError
from mae_jax.weights import positions
from mae_jax.weights.described import PROBLEMS, check_sizes, described
from mae_jax.weights.heads import MOCO, agreed, heads_of
from mae_jax.weights.layout import DECODER_POSITIONS, POSITIONS, Shape
from mae_jax.weights.model import Found, Model, Options
from mae_jax.weights.processor import images_of

logger = logging.getLogger(__name__)


def model_of(
    found: Found,
    params: dict[str, np.ndarray],
    shape: Shape,
    options: Options,
    dtypes: Mapping[str, np.dtype],
) -> Model:
    """Infers the model of arrays in our names; its position tables are resized, or dropped where we
    compute them.

    Args:
        found: the contents of the file.
        params: with POSITIONS and DECODER_POSITIONS, if the file has them.
        shape: of a patch.
        options: the user's.
        dtypes: path -> dtype in the file, of the position tables.

    Raises:
        UserError: something is missing, does not fit, or is ambiguous.
    """
    known = described(found)
    params, side, channels = dict(params), shape.patch[0], shape.channels
    width, depth = params["encoder/cls_token"].shape[-1], blocks_of(params, "encoder")
    sizes = dict(hidden_size=width, num_hidden_layers=depth, patch_size=side)
    check_sizes(found.config, found.name, **sizes)
    table = params.pop(POSITIONS, None)
    if table is None:
        raise UserError(f"{found.name} holds another model: it has no position embedding")
    sizes = known.get("image"), options.image_size
    table = positions.with_class_row(table, side, sizes, found.name)
    old, new = positions.grids_of(len(table) - 1, side, *sizes)
    if sizes[0] is not None and (old[0] * side, old[1] * side) != tuple(sizes[0]):
        logger.warning(
            "%s has an image size of %d x %d, and positions for %d x %d patches: using the latter",
            *(found.name, *sizes[0], *old),
        )
    decoder = any(path.startswith("decoder/") for path in params)
    if not decoder:
        refuse_for_decoders(options, found.name)
    dtype = dtypes[POSITIONS]
    moco = bool(MOCO.search(found.key)) or positions.is_of_moco(table, old, dtype)
    how = options.positions
    table = positions.fitted(table, old, new, how, dtype=dtype, decoder=decoder)
    if table is not None:
        params[POSITIONS] = table
    hidden = params["encoder/block_0/mlp/fc1/bias"].shape[0]
    heads = heads_of(known, options, width, found.name, moco=moco)
    encoder = vit_spec(
        dict(width=width, depth=depth, heads=heads),
        side,
        hidden,
        **({} if table is None else dict(learned_positions=True)),
    )
    image = (new[0] * side, new[1] * side, channels)
    mean, std = statistics_of(known, options, channels, found.name)
    args: dict[str, Any] = dict(encoder=encoder, mean=mean, std=std)
    pretrained = found.config["pretrained_cfg"] if "pretrained_cfg" in found.config else {}
    images = images_of(found.processor, pretrained, image[:2])
    model = _model(params, args, image, known, options, found, old, dtypes)
    return model._replace(images=images)


def _model(params, args, image, known, options, found, grid, dtypes) -> Model:
    """A masked autoencoder, a classifier or an encoder."""
    if any(path.startswith("decoder/") for path in params):
        args |= decoder_args(params, known, options, found.name)
        table = params.pop(DECODER_POSITIONS, None)
        positions.check_decoder(table, grid, found.name, dtypes.get(DECODER_POSITIONS))
        return Model(params, "mae", args, image)
    if "head/kernel" in params:
        args |= dict(classes=params["head/kernel"].shape[1])
        if "pool" not in known and "fc_norm/scale" not in params:
            logger.warning(
                "%s does not contain the input of its head: assuming the class token, the default "
                "of timm and Hugging Face",
                found.name,
            )
        objective = _objective(known, args["classes"], found.name)
        model = _classifier(params, args, image, known.get("pool"))
        return _learned(model, known["objective"], objective) if objective else model
    if "encoder/norm/scale" not in params:  # an encoder that was fine-tuned with pool=mean
        args["encoder"] = args["encoder"][:-1] + ", final_norm=False)"
    return Model(params, "tasks.encode", args | dict(pool=known.get("pool", "cls")), image)


def _objective(known: Mapping, classes: int, name: str) -> Objective | None:
    """The objective of a head; None: one class for each image."""
    spec = str(known.get("objective", "classes"))
    if spec not in PROBLEMS:
        raise UserError(
            f"{name} has a head of objective {spec!r}, and only {', '.join(PROBLEMS)} are read: "
            "leave it out with --encoder-only"
        )
    return None if spec == "classes" else make_objective(spec, classes)


def _learned(model: Model, spec: str, objective: Objective) -> Model:
    """A classifier with another objective, whose predictions are the outputs of the head."""
    args = model.args | dict(objective=spec)
    if model.method == "tasks.finetune" and not objective.soft:
        args |= dict(mixup=0.0, cutmix=0.0, smoothing=0.0)
    constants = {f"objective/{k}": np.asarray(v) for k, v in objective.initial().items()}
    return model._replace(args=args, extra=model.extra | constants)


def _classifier(params: dict, args: dict, image, pool: str | None) -> Model:
    """A fine-tuned classifier; a linear probe if the mean over tokens follows the final norm."""
    pool = pool or ("mean" if "fc_norm/scale" in params else "cls")
    width = params["head/kernel"].shape[0]
    if pool == "mean" and "fc_norm/scale" not in params:
        for leaf in ("kernel", "bias"):
            params[f"head_0/{leaf}"] = params.pop(f"head/{leaf}")
        # Statistics of a BatchNorm that changes nothing.
        stats = dict(mean=np.zeros(width, np.float32), var=np.full(width, 1 - EPSILON, np.float32))
        args |= dict(pool=pool, lr_factors=(1.0,))
        return Model(params, "tasks.linear_probe", args, image, stats)
    encoder = args["encoder"].replace(", learned_positions=True", "")  # fine-tuning trains them
    if POSITIONS not in params:
        patch = math.isqrt(params["encoder/embed/kernel"].shape[0] // image[2])
        params[POSITIONS] = with_prefix((image[0] // patch, image[1] // patch), width)
    args |= dict(encoder=encoder, pool=pool, drop_path=0.0)
    return Model(params, "tasks.finetune", args, image)


def blocks_of(params: Mapping[str, np.ndarray], part: str) -> int:
    """Number of blocks of 'encoder' or 'decoder'."""
    return len({path.split("/")[1] for path in params if path.startswith(f"{part}/block_")})


def vit_spec(shape: Mapping[str, int], patch: Any, hidden: int, **more: Any) -> str:
    """Spec string of a vision transformer.

    Args:
        shape: 'width', 'depth' and 'heads'.
        patch: side of a patch, or one for each axis.
        hidden: hidden width of the MLP.
        more: further arguments of `models.vit.make`.
    """
    return transformer_spec("vit", shape, hidden, dict(patch=patch), more)


def transformer_spec(
    kind: str,
    shape: Mapping[str, int],
    hidden: int,
    first: Mapping[str, Any],
    more: Mapping[str, Any],
) -> str:
    """Spec string of a network of transformer blocks.

    Args:
        kind: name of its module in `models/`.
        shape: 'width', 'depth' and 'heads'.
        hidden: hidden width of the MLP.
        first, more: further arguments of its `make`, before and after the ratio of the MLP.
    """
    names = [name for name, size in SIZES.items() if size == shape]
    sizes = names[:1] or [f"{key}={value}" for key, value in shape.items()]
    ratio = hidden / shape["width"]
    if int(shape["width"] * ratio) < hidden:  # the product is rounded to just below
        ratio = math.nextafter(ratio, math.inf)
    options = {**first, **({} if ratio == 4 else dict(mlp_ratio=ratio)), **more}
    return f"{kind}({', '.join([*sizes, *(f'{key}={value!r}' for key, value in options.items())])})"


def statistics_of(known: dict, options: Options, channels: int, name: str) -> tuple[tuple, tuple]:
    """Mean and standard deviation that images are normalized with.

    Args:
        known: 'mean' and 'std', if the file has them.
        channels: of the images.
        name: of the file, for messages.

    Raises:
        UserError: they are not known, or do not fit the channels.
    """
    if (options.mean is None) != (options.std is None):
        raise UserError("pass both --mean and --std, or neither")
    if options.mean is not None:
        mean, std = options.mean, options.std
    elif "mean" in known:
        mean, std = known["mean"], known["std"]
    elif options.for_start:
        return (), ()
    elif channels == 3:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        logger.warning("%s does not contain mean and std of images: assuming ImageNet's", name)
    else:
        raise UserError(
            f"{name} does not contain mean and std of its {channels} channel(s): pass --mean, --std"
        )
    where = "--" if options.mean is not None else f"{name}: "
    check_statistics(mean, std, where)
    if not {len(mean), len(std)} <= {1, channels}:
        raise UserError(f"mean {mean} and std {std} must have 1 value each, or {channels}")
    return tuple(map(float, mean)), tuple(map(float, std))


def refuse_for_decoders(options: Options, name: str) -> None:
    """Raises UserError if options describe a decoder, and none is read."""
    why = "--encoder-only leaves it out" if options.encoder_only else f"{name} has none"
    for option, value in (("decoder-heads", options.decoder_heads), ("target", options.target)):
        if value is not None:
            raise UserError(f"--{option} {value} describes a decoder, and {why}")


def decoder_args(params: Mapping, known: dict, options: Options, name: str) -> dict[str, Any]:
    """The arguments of a masked autoencoder for the decoder of the official MAE.

    Args:
        params: in our names.
        known: facts from accompanying configs, see `described`.
        name: of the file, for messages.

    Raises:
        UserError: the decoder is incomplete, or its heads or target are not known.
    """
    blocks = blocks_of(params, "decoder")
    if not blocks or "decoder/mask_token" not in params:
        lacks = "decoder/mask_token" if blocks else "blocks"
        raise UserError(
            f"the decoder in {name} is incomplete: it has no {lacks}; leave it out with "
            "--encoder-only"
        )
    width = params["decoder/mask_token"].shape[-1]
    heads = agreed("decoder-heads", known.get("decoder_heads"), options.decoder_heads, name)
    if heads is None and width != 512:
        raise UserError(
            f"{name} does not contain the number of heads of its decoder: pass --decoder-heads"
        )
    if heads is None:
        heads = 16
        logger.warning(
            "%s does not contain the number of heads of its decoder: assuming 16, as the official "
            "MAE at width 512: otherwise --decoder-heads NUMBER",
            name,
        )
    target = agreed("target", known.get("target"), options.target, name)
    if target is None:
        raise UserError(
            f"{name} does not contain the target of its decoder: pass --target normalized (the "
            "official mae_pretrain models) or --target pixels (the mae_visualize models)"
        )
    check_choice("target", target, ("normalized", "pixels"))
    return dict(
        mask_ratio=known.get("mask_ratio", 0.75),
        decoder_width=width,
        decoder_depth=blocks,
        decoder_heads=heads,
        target=f"pixels(normalize={target == 'normalized'})",
        pool=known.get("pool", "cls"),
    )
