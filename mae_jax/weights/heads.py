"""How many heads an encoder has: the one number that leaves no trace in its weights. Where nothing
says it, it is taken from what published families have at this width, and said.
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
"""In the names of MoCo v3's checkpoints (arXiv 2104.02057)."""
USUAL = {
    192: "DeiT and timm",
    384: "DeiT, DINO, iBOT, MSN and timm",
    768: "all ViT-B",
    1024: "all ViT-L",
    1280: "the official MAE and timm",
}
"""Width -> who has the heads that `SIZES` has."""
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
"""Width -> heads -> who has these, where `USUAL` names no one or others."""
MOCO_HEADS = {384: 12, 768: 12}


def heads_of(
    known: Mapping[str, Any], options: Options, width: int, name: str, *, moco: bool
) -> int:
    """The number of heads of an encoder.

    Args:
        known: what is said beside the arrays.
        width: of the encoder.
        name: of the file, for messages.
        moco: whether names or positions are those of MoCo v3.

    Raises:
        UserError: nothing says it and the width is of no published family, or two things said
            contradict each other.
    """
    said = agreed("heads", known.get("heads"), options.heads, name)
    if said is not None:
        return said
    if "named" in known and known["named"][0] == width:
        return known["named"][1]
    if moco and width in MOCO_HEADS:
        if width in OTHERS and MOCO_HEADS[width] in OTHERS[width]:
            logger.warning(
                "%s does not say how many heads it has: taken as %d, as MoCo v3, whose names or "
                "positions it has; otherwise mae-jax weights import --heads NUMBER",
                *(name, MOCO_HEADS[width]),
            )
        return MOCO_HEADS[width]
    if options.likely_heads is not None:
        logger.warning(
            "%s does not say how many heads it has: taken as %d, as config.method.args.encoder has"
            "%s",
            *(name, options.likely_heads, _others(width, options.likely_heads)),
        )
        return options.likely_heads
    usual = {size["width"]: size["heads"] for size in SIZES.values()}
    if width not in usual:
        raise UserError(
            f"{name} does not say how many heads a width of {width} has"
            f"{_others(width, None)}: give --heads to mae-jax weights import"
        )
    logger.warning(
        "%s does not say how many heads it has: taken as %d, as %s at width %d%s: otherwise "
        "--heads NUMBER",
        *(name, usual[width], USUAL[width], width, _others(width, usual[width])),
    )
    return usual[width]


def _others(width: int, taken: int | None) -> str:
    others = {n: who for n, who in OTHERS.get(width, {}).items() if n != taken}
    return "".join(f" ({who} has {number})" for number, who in others.items())


def agreed(option: str, known, given, name: str):
    """What a file says or a user does; None: neither.

    Raises:
        UserError: they do not say the same.
    """
    if known is not None and given is not None and known != given:
        raise UserError(f"--{option} {given}: {name} says {known}")
    return given if known is None else known
