"""Facts about a model that its arrays do not contain, from our own metadata, a config.json of
Hugging Face or timm, and a preprocessor_config.json.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any

from mae_jax.models.vit import SIZES
from mae_jax.ops.norm import EPSILON
from mae_jax.types import UserError
from mae_jax.weights.model import Found
from mae_jax.weights.processor import pixels_of

logger = logging.getLogger(__name__)

TYPES = ("vit", "vit_mae", "vit_msn", "beit", "videomae")
"""Values of model_type that are supported; BEiT only without relative positions."""
TIMM_POOLS = {"token": "cls", "avg": "mean"}
SHAPES = {
    *("img_size", "patch_size", "in_chans", "num_classes", "global_pool", "class_token"),
    *("embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "init_values", "no_embed_class"),
    *("drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "pos_drop_rate"),
    *("dynamic_img_size", "weight_init", "strict_img_size"),
}
"""Arguments of timm's VisionTransformer that follow from the weights or do not change features."""
SAME = dict(
    heads="num_attention_heads",
    decoder_heads="decoder_num_attention_heads",
    mask_ratio="mask_ratio",
)
"""Our names -> those in a config.json of Hugging Face."""
HUGGING_FACE = ("embeddings.", "vit.embeddings.", "beit.embeddings.", "videomae.embeddings.")
PROBLEMS = {
    "classes": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
"""Objectives that heads of other packages have -> their problem_type in a config.json."""
NAMES = {"tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H"}
"""timm's names of sizes -> the paper's."""


def described(found: Found) -> dict[str, Any]:
    """The known ones of 'heads', 'image' (its sides), 'mean', 'std', 'pool', 'objective',
    'decoder_heads', 'target' and 'mask_ratio'.

    Raises:
        UserError: the network is not supported, or a config is damaged.
    """
    try:
        known = _described(found)
        size = known.get("image", (1, 1))
        if len(size) not in (2, 3) or not all(type(side) is int and side > 0 for side in size):
            raise ValueError(f"{size} are no sides of images or clips")
    except (AttributeError, TypeError, ValueError) as error:  # values of other kinds than usual
        raise UserError(
            f"{found.name}: the description of the model in config.json, preprocessor_config.json "
            f"or the file itself is damaged ({error})"
        ) from error
    return known


def _described(found: Found) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if not found.config and any(name.startswith(HUGGING_FACE) for name in found.arrays):
        logger.warning(
            "%s has no config.json next to it: assuming hidden_act=gelu and layer_norm_eps=%g",
            *(found.name, EPSILON),
        )
    if "hidden_size" in found.config:
        known |= _hugging_face(found.config, found.name)
    if "pretrained_cfg" in found.config:
        known |= _timm(found.config, found.name)
    known |= pixels_of(found.processor, found.name)
    return known | found.notes


def _hugging_face(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    config = dict(model_type="vit", hidden_act="gelu", layer_norm_eps=EPSILON) | dict(config)
    if config["model_type"] not in TYPES:
        raise UserError(
            f"{name} holds another model, model_type={config['model_type']!r} in its config.json: "
            f"choose one of {', '.join(TYPES)}"
        )
    if config["hidden_act"] != "gelu":
        raise UserError(f"{name} has hidden_act={config['hidden_act']!r}: only gelu is supported")
    epsilon = config["layer_norm_eps"]
    if epsilon > EPSILON:
        raise UserError(
            f"{name} holds another model: it has layer_norm_eps={epsilon:g}, and ours {EPSILON:g}"
        )
    if epsilon < EPSILON:
        logger.warning(
            "%s has layer_norm_eps=%g: ours is %g, with which the official models were trained",
            *(name, epsilon, EPSILON),
        )
    values = {key: value for key, value in config.items() if value is not None}
    known = {ours: values[theirs] for ours, theirs in SAME.items() if theirs in values}
    if "image_size" in values:
        size = values["image_size"]
        known["image"] = tuple(size) if isinstance(size, list) else (size, size)
    objectives = {theirs: ours for ours, theirs in PROBLEMS.items()}
    if values.get("problem_type") in objectives:
        known["objective"] = objectives[values["problem_type"]]
    if "norm_pix_loss" in values:
        known["target"] = "normalized" if values["norm_pix_loss"] else "pixels"
    return known


def check_sizes(config: Mapping[str, Any], name: str, **sizes: int) -> None:
    """Checks that a config.json of Hugging Face describes a network of these sizes.

    Args:
        config: its values, or those of a section.
        name: of the weights, for messages.
        sizes: key of the config -> size in the weights.

    Raises:
        UserError: it describes a network of another size.
    """
    for key, size in sizes.items():
        value = config[key] if key in config else size
        if value not in (size, [size, size]):
            raise UserError(
                f"{name}: config.json describes another model, or weights are missing: "
                f"{key}={value!r} in config.json, {size} in the weights"
            )


def completed(values: Any, defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a section of config.json for the keys of `defaults`, which hold where the
    section has none.

    Args:
        where: the section, for messages.

    Raises:
        UserError: it is no section, or a value has another type than the default.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} is damaged: it is no JSON object")
    known = {key: values.get(key, default) for key, default in defaults.items()}
    for key, default in defaults.items():
        if type(known[key]) is not type(default):
            raise UserError(
                f"{where} has {key}={known[key]!r}, which is not supported: it should be like "
                f"{default!r}"
            )
    return known


def _timm(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    pretrained, known = config["pretrained_cfg"], {}
    known |= {k: v for k, v in pretrained.items() if k in ("mean", "std") and v is not None}
    if "global_pool" in config:
        pool = config["global_pool"]
        if pool not in TIMM_POOLS:
            raise UserError(
                f"{name} has global_pool={pool!r} in its config.json: only {', '.join(TIMM_POOLS)} "
                "are supported"
            )
        known |= dict(pool=TIMM_POOLS[pool])
    more = config["model_args"] if "model_args" in config else {}
    unknown = sorted(more.keys() - SHAPES)
    if unknown:
        raise UserError(
            f"{name} holds another model: {unknown[0]}={more[unknown[0]]!r} in model_args of its "
            "config.json is not supported"
        )
    sized = re.match(r"(?:vit|deit3?)_(tiny|small|base|large|huge)_", config["architecture"])
    size = SIZES[NAMES[sized[1]]] if sized else {}
    if "num_heads" in more:
        known |= dict(heads=more["num_heads"])
    elif size:
        known |= dict(named=(size["width"], size["heads"]))
    return known
