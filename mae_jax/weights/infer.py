"""What model an array file is of: sizes and pooling are read off the weights; heads, which leave no
trace in them, come from what stands beside them, or from the width, as the field's sizes have it.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mae_jax.models.vit import SIZES
from mae_jax.ops.posemb import with_class_token
from mae_jax.ops.resample import resample_positions
from mae_jax.spec import check_choice
from mae_jax.types import UserError
from mae_jax.weights.files import Found
from mae_jax.weights.model import EPSILON, Model, Options
from mae_jax.weights.names import DECODER_POSITIONS, POSITIONS

logger = logging.getLogger(__name__)

HOW = ("bicubic", "antialias", "recompute")
TIMM_POOLS = {"token": "cls", "avg": "mean"}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def model_of(found: Found, params: dict, patch: tuple[int, int], options: Options) -> Model:
    """The model that arrays in our names are of, its position tables fitted or dropped.

    Args:
        found: what the file said beside the arrays.
        params: with POSITIONS and DECODER_POSITIONS, if the file had them.
        patch: side of a patch in pixels, and number of channels.

    Raises:
        UserError: something is missing, does not fit, or cannot be told.
    """
    known = _known(found)
    params, (side, channels) = dict(params), patch
    width, depth = params["encoder/cls_token"].shape[-1], _blocks(params, "encoder")
    table = params.pop(POSITIONS, None)
    if table is None:
        raise UserError(f"{found.name} has no position embedding: it is of another model")
    old, new = _grids(len(table) - 1, side, known.get("image"), options.image_size)
    half = next(a for a in found.arrays.values() if a.ndim > 1).dtype.itemsize < 4
    atol = 1e-2 if half else 1e-5
    decoder = any(path.startswith("decoder/") for path in params)
    if not decoder:
        _refuse_for_decoders(options, found.name)
    table = _positions(table, old, new, options.positions, atol=atol, decoder=decoder)
    if table is not None:
        params[POSITIONS] = table
    hidden = params["encoder/block_0/mlp/fc1/bias"].shape[0]
    heads = _heads(known.get("heads"), options, width, found.name)
    encoder = _spec(width, depth, heads, side, hidden / width, table is not None)
    image = (new[0] * side, new[1] * side, channels)
    mean, std = _pixels(known, options, channels, found.name)
    args: dict[str, Any] = dict(encoder=encoder, mean=mean, std=std)
    if decoder:
        _check_decoder_positions(params.pop(DECODER_POSITIONS, None), old, found.name, atol)
        args |= _decoder_args(params, known, options, found.name)
        return Model(params, "mae", args, image)
    if "head/kernel" in params:
        args |= dict(classes=params["head/kernel"].shape[1])
        return _classifier(params, args, image, known.get("pool"))
    if "encoder/norm/scale" not in params:  # of an encoder that was tuned with pool=mean
        args["encoder"] = args["encoder"][:-1] + ", final_norm=False)"
    return Model(params, "tasks.encode", args | dict(pool=known.get("pool", "cls")), image)


def _classifier(params: dict, args: dict, image, pool: str | None) -> Model:
    """A fine-tuned encoder; where a mean is taken after the encoder's norm, a probed one."""
    pool = pool or ("mean" if "fc_norm/scale" in params else "cls")
    width = params["head/kernel"].shape[0]
    if pool == "mean" and "fc_norm/scale" not in params:
        for leaf in ("kernel", "bias"):
            params[f"head_0/{leaf}"] = params.pop(f"head/{leaf}")
        still = dict(mean=np.zeros(width, np.float32), var=np.full(width, 1 - EPSILON, np.float32))
        args |= dict(pool=pool, lr_factors=(1.0,))
        return Model(params, "tasks.linear_probe", args, image, still)
    encoder = args["encoder"].replace(", learned_positions=True", "")  # fine-tuning trains them
    if POSITIONS not in params:
        patch = math.isqrt(params["encoder/embed/kernel"].shape[0] // image[2])
        params[POSITIONS] = with_class_token((image[0] // patch, image[1] // patch), width)
    args |= dict(encoder=encoder, pool=pool, drop_path=0.0)
    return Model(params, "tasks.finetune", args, image)


def _known(found: Found) -> dict[str, Any]:
    """What stands beside the arrays: our own notes, or the config of Hugging Face or timm."""
    config, known = dict(hidden_act="gelu", layer_norm_eps=EPSILON) | found.config, {}
    if "hidden_size" in config:
        if config["hidden_act"] != "gelu":
            raise UserError(f"{found.name} has hidden_act={config['hidden_act']!r}, not gelu")
        if config["layer_norm_eps"] > EPSILON:
            raise UserError(
                f"{found.name} has layer_norm_eps={config['layer_norm_eps']:g}: of another model, "
                f"here it is {EPSILON:g}"
            )
        if config["layer_norm_eps"] < EPSILON:
            logger.warning(
                "%s says layer_norm_eps=%g: here it is %g, with which the official models were "
                "trained",
                *(found.name, config["layer_norm_eps"], EPSILON),
            )
        size = config["image_size"]
        known = dict(
            heads=config["num_attention_heads"],
            image=tuple(size) if isinstance(size, list) else (size, size),
        )
        if "decoder_num_attention_heads" in config:
            known |= dict(
                decoder_heads=config["decoder_num_attention_heads"],
                target="normalized" if config["norm_pix_loss"] else "pixels",
                mask_ratio=config["mask_ratio"],
            )
    if "pretrained_cfg" in config:  # timm's
        known |= {k: v for k, v in config["pretrained_cfg"].items() if k in ("mean", "std")}
        if config["global_pool"] in TIMM_POOLS:
            known |= dict(pool=TIMM_POOLS[config["global_pool"]])
    if found.processor.get("do_normalize", True) is False:
        known |= dict(mean=[0.0], std=[1.0])
    elif "image_mean" in found.processor:
        known |= dict(mean=found.processor["image_mean"], std=found.processor["image_std"])
    return known | found.notes


def _blocks(params: Mapping[str, np.ndarray], part: str) -> int:
    return len({path.split("/")[1] for path in params if path.startswith(f"{part}/block_")})


def _heads(known: int | None, options: Options, width: int, name: str) -> int:
    heads = {size["width"]: size["heads"] for size in SIZES.values()}
    said = _agreed("heads", known, options.heads, name)
    if said is not None or options.likely_heads is not None:
        return options.likely_heads if said is None else said
    if width not in heads:
        raise UserError(
            f"{name} does not say how many heads a width of {width} has: give --heads "
            "to mae-jax weights import"
        )
    return heads[width]


def _agreed(option: str, known, given, name: str):
    """What a file says or a user does; None: neither."""
    if known is not None and given is not None and known != given:
        raise UserError(f"--{option} {given}: {name} says {known}")
    return given if known is None else known


def _spec(width: int, depth: int, heads: int, patch: int, ratio: float, learned: bool) -> str:
    shape = dict(width=width, depth=depth, heads=heads)
    names = [name for name, size in SIZES.items() if size == shape]
    first = names[0] if names else ", ".join(f"{key}={value}" for key, value in shape.items())
    more = "" if ratio == 4 else f", mlp_ratio={ratio!r}"
    return f"vit({first}, patch={patch}{more}{', learned_positions=True' if learned else ''})"


def _grids(count: int, patch: int, image, wanted) -> tuple[tuple[int, int], tuple[int, int]]:
    """The grid of patches that positions are of, and the one that they shall be of."""
    for height, width in filter(None, (image, wanted)):
        if height % patch or width % patch:
            raise UserError(f"images of {height} x {width} are not whole patches of {patch}")
    grid = lambda size: (size[0] // patch, size[1] // patch)
    side = math.isqrt(count)
    if image is not None and math.prod(grid(image)) == count:
        old = grid(image)
    elif wanted is not None and math.prod(grid(wanted)) == count:
        old = grid(wanted)
    elif side * side == count:
        old = (side, side)
    else:
        raise UserError(
            f"which rows and columns do {count} patches have? Say --image-size H,W to "
            "mae-jax weights import"
        )
    return old, grid(wanted) if wanted is not None else old


def _positions(table: np.ndarray, old, new, how: str | None, *, atol: float, decoder: bool):
    """The table for a grid; None if it is the one that is computed here."""
    if how is not None:
        check_choice("positions", how, HOW)
    if how is not None and old == new:
        raise UserError(f"--positions {how} is for another --image-size than that of the weights")
    fixed = _is_fixed(table, old, atol)
    if decoder and how not in (None, "recompute"):
        raise UserError(
            f"--positions {how} is for encoders, and this decoder's are sine-cosine: choose "
            "recompute, or leave the decoder out with --encoder-only"
        )
    if old == new or (fixed and how == "recompute"):
        return None if fixed else table
    if how in (None, "recompute"):
        more = ", or recompute (they are sine-cosine)" if fixed else ""
        raise UserError(
            f"the positions are of {old[0]} x {old[1]} patches and {new[0]} x {new[1]} are wanted: "
            "choose --positions bicubic (as official MAE and transformers), antialias (as timm)"
            f"{more}"
        )
    return np.asarray(resample_positions(jnp.asarray(table), old, new, kernel=how))


def _is_fixed(table: np.ndarray, grid: tuple[int, int], atol: float) -> bool:
    """Whether a table is the sine-cosine one, but for rounding, coarse in half precision."""
    expected = with_class_token(grid, table.shape[1])
    return table.shape == expected.shape and bool(np.abs(table - expected).max() < atol)


def _check_decoder_positions(table: np.ndarray | None, grid, name: str, atol: float) -> None:
    if table is not None and not _is_fixed(table, grid, atol):
        raise UserError(
            f"the decoder in {name} has positions that are not the sine-cosine ones: it has no "
            "place here, leave it out with --encoder-only"
        )


def _pixels(known: dict, options: Options, channels: int, name: str) -> tuple[tuple, tuple]:
    """Mean and deviation that images are normalised with."""
    if (options.mean is None) != (options.std is None):
        raise UserError("give both --mean and --std, or neither")
    if options.mean is not None:
        mean, std = options.mean, options.std
    elif "mean" in known:
        mean, std = known["mean"], known["std"]
    elif options.encoder_only:
        return (), ()  # whoever uses the encoder has to say it
    elif channels == 3:
        mean, std = IMAGENET
        logger.warning("%s does not say how images are normalised: taken as ImageNet's", name)
    else:
        raise UserError(
            f"{name} does not say how its {channels} channel(s) were normalised: give --mean, --std"
        )
    if not {len(mean), len(std)} <= {1, channels}:
        raise UserError(f"mean {mean} and std {std} are not one number, or one for each channel")
    return tuple(map(float, mean)), tuple(map(float, std))


def _refuse_for_decoders(options: Options, name: str) -> None:
    """Raises UserError if something is said of a decoder, where none is taken."""
    why = "--encoder-only leaves it out" if options.encoder_only else f"{name} has none"
    for option in ("decoder_heads", "target"):
        value = getattr(options, option)
        if value is not None:
            raise UserError(f"--{option.replace('_', '-')} {value} is of a decoder, and {why}")


def _decoder_args(params: Mapping, known: dict, options: Options, name: str) -> dict[str, Any]:
    width = params["decoder/mask_token"].shape[-1]
    heads = _agreed("decoder-heads", known.get("decoder_heads"), options.decoder_heads, name)
    if heads is None:
        heads = 16 if width == 512 else None
    if heads is None:
        raise UserError(f"{name} does not say its decoder's heads: give --decoder-heads")
    target = _agreed("target", known.get("target"), options.target, name)
    if target is None:
        raise UserError(
            f"{name} does not say what its decoder predicts: give --target normalized (as the "
            "official mae_pretrain models do) or --target pixels (as mae_visualize models do)"
        )
    check_choice("target", target, ("normalized", "pixels"))
    return dict(
        mask_ratio=known.get("mask_ratio", 0.75),
        decoder_width=width,
        decoder_depth=_blocks(params, "decoder"),
        decoder_heads=heads,
        normalize_target=target == "normalized",
        pool=known.get("pool", "cls"),
    )
