"""The number of attention heads, the only size that does not follow from array shapes. Without an
accompanying config it is that of published models of this width, with a warning.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

from mae_jax.models.vit import SIZES
from mae_jax.types import UserError
from mae_jax.weights.model import Options

logger = logging.getLogger(__name__)

MOCO = re.compile(r"(^|\.)(base|momentum)_encoder(\.|$)")
"""Matches names in MoCo v3's checkpoints (arXiv 2104.02057)."""
USUAL = {
    192: "DeiT and timm",
    384: "DeiT, DINO, iBOT, MSN and timm",
    768: "all ViT-B",
    1024: "all ViT-L",
    1280: "the official MAE and timm",
}
"""Width -> models with as many heads as in `SIZES`."""
OTHERS = {
    192: {12: "MAE-Lite"},
    384: {12: "MoCo v3"},
    512: {8: "timm's vit_medium"},
    640: {10: "timm's vit_betwixt"},
    768: {8: "timm's first vit_small"},
    1152: {16: "SoViT-400m"},
    1408: {16: "ViT-g"},
    1536: {24: "DINOv2's ViT-g"},
    1664: {16: "ViT-G"},
}
"""Width -> number of heads -> models with this number that `USUAL` does not list."""
MOCO_HEADS = {384: 12, 768: 12}


def heads_of(
    known: Mapping[str, Any], options: Options, width: int, name: str, *, moco: bool
) -> int:
    """The number of heads of an encoder.

    Args:
        known: facts from accompanying configs, see `described`.
        width: D of the encoder.
        name: of the file, for messages.
        moco: whether names or positions are those of MoCo v3.

    Raises:
        UserError: the number is not given and no published model has this width, or the option
            contradicts the file.
    """
    heads = agreed("heads", known.get("heads"), options.heads, name)
    if heads is not None:
        return heads
    if "named" in known and known["named"][0] == width:
        return known["named"][1]
    if moco and width in MOCO_HEADS:
        if width in OTHERS and MOCO_HEADS[width] in OTHERS[width]:
            logger.warning(
                "%s does not contain the number of heads: assuming %d, as MoCo v3, whose names or "
                "positions it has; otherwise mae-jax weights import --heads NUMBER",
                *(name, MOCO_HEADS[width]),
            )
        return MOCO_HEADS[width]
    if options.likely_heads is not None:
        logger.warning(
            "%s does not contain the number of heads: assuming %d, as config.method.args.encoder "
            "has%s",
            *(name, options.likely_heads, _others(width, options.likely_heads)),
        )
        return options.likely_heads
    usual = {size["width"]: size["heads"] for size in SIZES.values()}
    if width not in usual:
        raise UserError(
            f"{name} does not contain the number of heads, and no standard ViT has width {width}"
            f"{_others(width, None)}: pass --heads to mae-jax weights import"
        )
    logger.warning(
        "%s does not contain the number of heads: assuming %d, as %s at width %d%s: otherwise "
        "--heads NUMBER",
        *(name, usual[width], USUAL[width], width, _others(width, usual[width])),
    )
    return usual[width]


def _others(width: int, taken: int | None) -> str:
    others = {n: who for n, who in OTHERS.get(width, {}).items() if n != taken}
    return "".join(f" ({who} has {number})" for number, who in others.items())


def agreed(option: str, known, given, name: str):
    """The value from a file or from an option; None: neither.

    Raises:
        UserError: they contradict each other.
    """
    if known is not None and given is not None and known != given:
        raise UserError(f"--{option} {given} contradicts {name}, which has {known}: leave it out")
    return given if known is None else known
