"""CLIP (arXiv 2103.00020) of Hugging Face: `CLIPModel` of transformers, and the tower of images
alone, `CLIPVisionModel`. The end of a text, at which both pool, is its last token here, and there
the token with the number in config.json.

The patch embedding has no bias there: ours is added to the positions of the patches, which gives
the same sums. Positions that we compute are written like learned ones.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from mae_jax.models.encoder import Encoder
from mae_jax.models.text_tower import TextTower
from mae_jax.models.transformer import ACTIVATIONS
from mae_jax.ops.patches import grid_of
from mae_jax.spec import arguments, build, check_choice
from mae_jax.types import UserError
from mae_jax.weights.described import check_sizes, completed
from mae_jax.weights.heads import agreed
from mae_jax.weights.infer import blocks_of, refuse_for_decoders, statistics_of, transformer_spec
from mae_jax.weights.layout import POSITIONS, Form, Row, Shape, dense, norm
from mae_jax.weights.layouts import Layout
from mae_jax.weights.model import Found, Model, Options
from mae_jax.weights.positions import learned
from mae_jax.weights.processor import CLIP, each_channel, images_of, pixels_of, written
from mae_jax.weights.texts import tokenizer_files, tokenizer_of

logger = logging.getLogger(__name__)

SHARED = dict(num_hidden_layers=12, hidden_act="quick_gelu", layer_norm_eps=1e-5)
VISION = SHARED | dict(hidden_size=768, num_attention_heads=12, image_size=224, patch_size=32)
TEXT = SHARED | dict(hidden_size=512, num_attention_heads=8)
TEXT |= dict(vocab_size=49408, max_position_embeddings=77)
"""Values of transformers for keys that a config.json leaves out."""
TOKEN = Form(lambda a: a[None, None], lambda a, shape: a[0, 0], axes=1)
NUMBER = Form(lambda a: a.reshape(()), lambda a, shape: a)


def _blocks(ours: str, theirs: str) -> list[Row]:
    layer, block = f"{theirs}encoder.layers.{{}}", f"{ours}/block_{{}}"
    parts = [f"{layer}.self_attn.{part}_proj" for part in "qkv"]
    return [
        *norm(f"{block}/norm1", f"{layer}.layer_norm1"),
        *dense(f"{block}/attention/qkv", *parts),
        *dense(f"{block}/attention/proj", f"{layer}.self_attn.out_proj"),
        *norm(f"{block}/norm2", f"{layer}.layer_norm2"),
        *dense(f"{block}/mlp/fc1", f"{layer}.mlp.fc1"),
        *dense(f"{block}/mlp/fc2", f"{layer}.mlp.fc2"),
    ]


def _of_images(prefix: str) -> list[Row]:
    embeddings = f"{prefix}embeddings"
    return [
        Row("encoder/cls_token", (f"{embeddings}.class_embedding",), TOKEN),
        Row(POSITIONS, (f"{embeddings}.position_embedding.weight",), "same"),
        Row("encoder/embed/kernel", (f"{embeddings}.patch_embedding.weight",), "patch"),
        *norm("encoder/input_norm", f"{prefix}pre_layrnorm"),
        *_blocks("encoder", prefix),
        *norm("encoder/norm", f"{prefix}post_layernorm"),
    ]


BOTH = [
    *_of_images("vision_model."),
    Row("text/table", ("text_model.embeddings.token_embedding.weight",), "same"),
    Row("text/positions", ("text_model.embeddings.position_embedding.weight",), "same"),
    *_blocks("text", "text_model."),
    *norm("text/norm", "text_model.final_layer_norm"),
    Row("image_projection/kernel", ("visual_projection.weight",), "dense"),
    Row("text_projection/kernel", ("text_projection.weight",), "dense"),
    Row("logit_scale", ("logit_scale",), NUMBER),
]
WRITTEN = {"CLIPModel": BOTH, "CLIPVisionModel": _of_images("vision_model.")}
"""Class of transformers -> its table. Version 5 writes the latter without the prefix."""


def make() -> Layout:
    """Makes the layout: a folder that `from_pretrained` reads."""
    return Layout(
        readable=[BOTH, _of_images("")],
        networks="transformers' CLIP",
        package="transformers",
        unused=r"(.*\.)?position_ids",
        encoder="clip_vit",
        choose=lambda model: WRITTEN[_kind(model)],
        prepare=_merged,
        describe=_files,
        infer=infer,
    )


def infer(found: Found, params: dict[str, np.ndarray], shape: Shape, options: Options) -> Model:
    """Both towers, or that of images, of arrays in our names.

    Args:
        found: the contents of the file.
        params: path -> array.
        shape: of a patch.
        options: the user's.

    Raises:
        UserError: a description is missing, or the model is none of ours.
    """
    refuse_for_decoders(options, found.name)
    vision, text = _sections(found)
    width, side = params["encoder/cls_token"].size, shape.patch[0]
    sizes = dict(hidden_size=width, num_hidden_layers=blocks_of(params, "encoder"), patch_size=side)
    check_sizes(vision, found.name, **sizes)
    params = params | {"encoder/embed/bias": np.zeros(width, np.float32)}
    wanted = dict(wanted=options.image_size, how=options.positions)
    params[POSITIONS], size = learned(
        params[POSITIONS], side, vision["image_size"], found.name, **wanted
    )
    heads = agreed("heads", vision["num_attention_heads"], options.heads, found.name)
    encoder = _spec("clip_vit", params, "encoder", vision, heads, dict(patch=side))
    mean, std = _statistics(found, options, shape.channels)
    args = dict(encoder=encoder, pool="cls", mean=mean, std=std)
    image, images = (*size, shape.channels), images_of(found.processor, {}, size)
    if "text/table" in params and not options.encoder_only:
        args |= _text_args(found, params, text)
        texts = tokenizer_of(found, args["vocabulary"])
        return Model(params, "clip", args, image, images=images, vocabulary=texts)
    if "image_projection/kernel" in params:
        raise UserError(
            f"{found.name} holds CLIP's tower of images and its projection, without the tower of "
            "texts: leave the projection out with --encoder-only"
        )
    return Model(params, "tasks.encode", args, image, images=images)


def _sections(found: Found) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of both towers in config.json; {} for a tower that it does not describe."""
    values = {key: value for key, value in found.config.items() if value is not None}
    kind, name = values.get("model_type"), found.name
    if kind not in ("clip", "clip_vision_model"):
        what = f"model_type={kind!r} in its config.json" if kind else "no config.json of CLIP"
        raise UserError(
            f"{name} has {what}, and numbers of heads and activations are not in the weights: pass "
            "the whole folder of transformers' CLIPModel or CLIPVisionModel"
        )
    if kind == "clip_vision_model":
        return _section(values, VISION, name, "config.json"), {}
    # Older files have both descriptions, of which transformers prefers the first.
    given = lambda key: values.get(f"{key}_dict", values.get(key, {}))
    vision = _section(given("vision_config"), VISION, name, "vision_config")
    return vision, _section(given("text_config"), TEXT, name, "text_config")


def _section(values: Any, defaults: Mapping[str, Any], name: str, key: str) -> dict[str, Any]:
    section = completed(values, defaults, f"{name}: {key}")
    check_choice(f"{name}: hidden_act of {key}", section["hidden_act"], ACTIVATIONS)
    return section


def _statistics(found: Found, options: Options, channels: int) -> tuple[tuple, tuple]:
    """Mean and standard deviation of the pixels."""
    known = pixels_of(found.processor, found.name)
    if not known and options.mean is None and not options.for_start and channels == 3:
        logger.warning("%s does not contain mean and std of images: assuming CLIP's", found.name)
        known = dict(mean=CLIP[0], std=CLIP[1])
    return statistics_of(known, options, channels, found.name)


def _spec(
    kind: str,
    params: Mapping[str, np.ndarray],
    part: str,
    section: Mapping[str, Any],
    heads: int,
    first: Mapping[str, Any],
) -> str:
    """Spec string of a tower, without defaults."""
    width, hidden = params[f"{part}/block_0/mlp/fc1/kernel"].shape
    shape = dict(width=width, depth=blocks_of(params, part), heads=heads)
    more = dict(activation=section["hidden_act"], epsilon=section["layer_norm_eps"])
    defaults = arguments(kind, "models", dict(vocabulary=1, length=1) if part == "text" else {})
    more = {key: value for key, value in more.items() if value != defaults[key]}
    return transformer_spec(kind, shape, hidden, first, more)


def _text_args(
    found: Found, params: Mapping[str, np.ndarray], text: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of `clip` that are not of its images."""
    if not text:
        raise UserError(f"{found.name} has a tower of texts, which its config.json does not have")
    (size, width), length = params["text/table"].shape, len(params["text/positions"])
    sizes = dict(hidden_size=width, num_hidden_layers=blocks_of(params, "text"))
    sizes |= dict(vocab_size=size, max_position_embeddings=length)
    check_sizes(text, found.name, **sizes)
    pooled, heads = dict(causal=True, pool="last"), text["num_attention_heads"]
    return dict(
        text=_spec("text_tower", params, "text", text, heads, pooled),
        vocabulary=size,
        length=length,
        embedding=params["text_projection/kernel"].shape[1],
        loss="infonce",
        mask_ratio=0.0,
        tuning_share=0.0,
    )


def _kind(model: Model) -> str:
    """The class of transformers for a model.

    Raises:
        UserError: it is not CLIP.
    """
    args, network = model.args, build(model.args["encoder"], "models", Encoder)
    height, width = model.image[:2]
    fits = {
        "final_norm=True": "encoder/norm/scale" in model.params,
        "patches of a square side": isinstance(network.patch, int),
        "square images": height == width,
    }
    both = "text_projection/kernel" in model.params
    if both:
        tower = _text_tower(model)
        fits |= {
            "loss=infonce": args["loss"] == "infonce",
            "pool=cls": args["pool"] == "cls",
            "causal=True of text_tower": tower.causal,
            "pool=last of text_tower": tower.pool == "last",
        }
    for option, fit in fits.items():
        if not fit:
            raise UserError(f"the layout clip needs {option}: use --format stablehlo")
    return "CLIPModel" if both else "CLIPVisionModel"


def _text_tower(model: Model) -> TextTower:
    sizes = {name: model.args[name] for name in ("vocabulary", "length")}
    return build(model.args["text"], "models", TextTower, **sizes)


def _merged(model: Model) -> Model:
    """The model with positions of its own, and the bias of the patch embedding in those of the
    patches.
    """
    network, params = build(model.args["encoder"], "models", Encoder), dict(model.params)
    grid = grid_of(model.image[:2], network.patch)
    table = params.get(POSITIONS, network.table(grid))  # [1 + L, D]
    if len(table) != 1 + grid[0] * grid[1]:
        raise UserError(f"the position table has {len(table) - 1} patches, and the images {grid}")
    bias = params.pop("encoder/embed/bias")
    if bias.any():  # otherwise no bit of the table changes
        table = np.concatenate([table[:1], table[1:] + bias])
    return model._replace(params=params | {POSITIONS: table})


def _files(model: Model) -> dict[str, Any]:
    """The JSON files of the folder."""
    kind, (side, _, channels) = _kind(model), model.image
    mean, std = (each_channel(model.args[name], channels) for name in ("mean", "std"))
    resized = dict(size=dict(shortest_edge=side), resample=3, crop=(side, side))
    files = {"preprocessor_config.json": written("CLIPImageProcessor", mean, std, **resized)}
    network = build(model.args["encoder"], "models", Encoder)
    vision = _sizes(network) | dict(model_type="clip_vision_model", image_size=side)
    vision |= dict(patch_size=network.patch, num_channels=channels)
    about = dict(architectures=[kind], dtype="float32")
    if kind == "CLIPVisionModel":
        return files | {"config.json": vision | about}
    tower, embedding = _text_tower(model), dict(projection_dim=model.args["embedding"])
    special, more = tokenizer_files(model)
    text = _sizes(tower) | dict(model_type="clip_text_model", vocab_size=tower.vocabulary)
    text |= dict(max_position_embeddings=tower.length)
    config = dict(
        model_type="clip",
        vision_config=vision | embedding,
        text_config=text | embedding | special,
        logit_scale_init_value=float(model.params["logit_scale"]),
    )
    return files | more | {"config.json": config | embedding | about}


def _sizes(network: Any) -> dict[str, Any]:
    return dict(
        hidden_size=network.width,
        intermediate_size=int(network.width * network.mlp_ratio),
        num_hidden_layers=network.depth,
        num_attention_heads=network.heads,
        hidden_act=network.activation,
        layer_norm_eps=network.epsilon,
    )
