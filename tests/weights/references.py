"""Models of other libraries with random weights, in files as those libraries lay them out, and what
the libraries themselves make of some images: Hugging Face transformers (ViTMAE, ViT and BEiT), timm
(`VisionTransformer`), and the layout of the official code of MAE (arXiv 2111.06377), whose arrays
are those of ViTMAE under other names.

The libraries are imported where they are used: what unpacks `tests/golden` needs none of them.
"""

import argparse
import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).parent.parent / "golden"
EPSILON = 1e-6
"""Of the layer norms. Transformers' own default is 1e-12, the official code's and timm's this."""
KINDS = (
    "ViTMAEForPreTraining",
    "ViTMAEModel",
    "ViTForImageClassification",
    "BeitForImageClassification",
)
"""Of transformers. The last is a vision transformer with a norm after the mean of its tokens."""
TO_PUBLISHED = (
    (r"^(vit|beit)\.layers\.", r"\1.encoder.layer."),
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
"""From transformers' names in memory to those of the files that are published for it."""
TO_OFFICIAL = (
    (r"^vit\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^vit\.embeddings\.position_embeddings$", "pos_embed"),
    (r"^vit\.embeddings\.cls_token$", "cls_token"),
    (r"^vit\.layernorm\.", "norm."),
    (r"^vit\.layers\.", "blocks."),
    (r"^decoder\.decoder_layers\.", "decoder_blocks."),
    (r"^decoder\.", ""),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.q_proj\.", ".attn.qkv."),
)
"""To those of the official code, the three parts of attention joined as one."""


class Reference(NamedTuple):
    """Weights in a file or folder, and what the model that they are of makes of images."""

    path: Path
    images: np.ndarray
    """[B, C, H, W] float32, as the network takes them."""
    outputs: dict[str, np.ndarray]
    """Of 'features' [B, 1 + L, D] (the tokens of whole images), 'logits' [B, classes],
    'prediction' [B, L, P] and 'loss' [] those that the model has, float32."""
    noise: np.ndarray | None = None
    """[B, L]: the patches of lowest noise were visible to prediction and loss."""


def golden(name: str):
    """A script of tests/golden as a module."""
    if str(GOLDEN) not in sys.path:
        sys.path.append(str(GOLDEN))
    return importlib.import_module(name)


def renamed(name: str, rules) -> str:
    """A name after all rules (regex, replacement), in their order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def published(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Transformers' arrays under the names of the files that are published for it."""
    return {renamed(name, TO_PUBLISHED): array for name, array in arrays.items()}


def official(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of `ViTMAEForPreTraining` as the official code of MAE has them."""
    out = {}
    for name, array in arrays.items():
        if ".q_proj." in name:
            parts = [arrays[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            array = np.concatenate(parts)
        elif ".k_proj." in name or ".v_proj." in name:
            continue
        out[renamed(name, TO_OFFICIAL)] = array
    return out


def golden_timm(name: str, path: Path) -> tuple[Reference, dict]:
    """A golden case of timm, its weights written to `path` (.safetensors), and its settings."""
    with np.load(GOLDEN / f"timm_{name}.npz") as arrays:
        found = dict(arrays)
    save_file(_group(found, "weight/"), path)
    outputs = {key: found[key] for key in ("features", "logits") if key in found}
    return Reference(path, found["images"], outputs), json.loads(str(found["config"]))


def golden_mae(name: str, path: Path, *, layout: str) -> tuple[Reference, dict]:
    """A golden case of transformers' ViTMAE, and its settings; in the layout 'published' `path` is
    a folder with a config.json, in 'official' a .safetensors file.
    """
    with np.load(GOLDEN / f"vitmae_{name}.npz") as arrays:
        found = dict(arrays)
    settings, weights = json.loads(str(found["config"])), _group(found, "weight/")
    if layout == "official":
        save_file(official(weights), path)
    else:
        path.mkdir(exist_ok=True)
        save_file(published(weights), path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(settings | {"model_type": "vit_mae"}))
    outputs = {key: found[key] for key in ("features", "prediction", "loss")}
    return Reference(path, found["images"], outputs, found["noise"]), settings


def _group(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Those whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def timm_file(
    settings: dict,
    path: Path,
    *,
    batch: int = 2,
    image_size: tuple[int, int] | None = None,
) -> Reference:
    """A `VisionTransformer` as a file of timm's: .safetensors, or .pth.

    Args:
        settings: its keyword arguments, see `config_of` of golden/make_timm.py.
        image_size: of the images, if it is not the one of the settings; timm fits the positions.
    """
    import torch

    script = golden("make_timm")
    generator = torch.Generator().manual_seed(0)
    model = script.build(settings, generator)
    if path.suffix == ".pth":
        torch.save(model.state_dict(), path)
    else:
        save_file({name: value.numpy() for name, value in model.state_dict().items()}, path)
    if image_size is not None:
        model = script.resized(model, settings, image_size)
    shape = (batch, settings["in_chans"], *(image_size or settings["img_size"]))
    images = torch.randn(shape, generator=generator) + 0.3
    return Reference(path, images.numpy(), _numpy(script.outputs(model, images)))


def hf_folder(
    kind: str,
    settings: dict,
    path: Path,
    *,
    batch: int = 2,
    image_size: tuple[int, int] | None = None,
    original_names: bool = True,
) -> Reference:
    """A model of transformers as a folder that its `save_pretrained` writes.

    Args:
        kind: one of `KINDS`.
        settings: as `config_of` of golden/make_vitmae.py makes them; classifiers take their own
            part of them, and 'num_labels'.
        image_size: of the images, if it is not the one of the settings; transformers interpolates
            the positions. Not for 'ViTMAEForPreTraining'.
        original_names: of arrays, as `save_pretrained` has them unless it is told otherwise; else
            those that version 5 has in memory.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    model = _mae(kind, settings, generator) if "MAE" in kind else _vit(kind, settings, generator)
    model.eval().save_pretrained(path, save_original_format=original_names)
    size = tuple(image_size or settings["image_size"])
    sites = size[0] * size[1] // settings["patch_size"] ** 2
    noise = torch.rand(batch, sites, generator=generator)
    images = torch.randn(batch, settings["num_channels"], *size, generator=generator) + 0.3
    with torch.no_grad():
        model = model.double()
        outputs = _outputs(model, images.double(), noise, interpolate=image_size is not None)
    return Reference(path, images.numpy(), _numpy(outputs), noise.numpy())


def _mae(kind: str, settings: dict, generator):
    """A ViTMAE or its encoder, float32."""
    model = golden("make_vitmae").build(settings, generator).float()
    if kind == "ViTMAEForPreTraining":
        return model
    del model.vit.embeddings.interpolate_pos_encoding  # the library's own again
    return model.vit


def _vit(kind: str, settings: dict, generator):
    """A classifier, float32."""
    import torch
    import transformers

    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    names += ("image_size", "patch_size", "num_channels", "num_labels")
    more = dict(layer_norm_eps=EPSILON)
    if kind == "BeitForImageClassification":
        more |= dict(layer_scale_init_value=0.0, use_absolute_position_embeddings=True)
    model_class = getattr(transformers, kind)
    model = model_class(model_class.config_class(**{n: settings[n] for n in names}, **more))
    randomize = golden("make_vitmae").randomize
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            table = name.endswith("position_embeddings")
            value = randomize(name, parameter.shape, generator)
            parameter.copy_(0.3 * value * np.prod(parameter.shape[1:]) ** 0.5 if table else value)
    return model


def _outputs(model, images, noise, *, interpolate: bool) -> dict:
    """What `Reference` says of outputs, of images [B, C, H, W] and noise [B, L]."""
    kind = type(model).__name__
    if kind == "ViTMAEModel":
        return dict(features=_whole(model, images, interpolate))
    if kind == "ViTMAEForPreTraining":
        out = model(images, noise)
        features = _whole(model.vit, images, interpolate)
        return dict(features=features, prediction=out.logits, loss=out.loss)
    # BEiT interpolates without being asked.
    more = dict(interpolate_pos_encoding=True) if interpolate and hasattr(model, "vit") else {}
    tokens = getattr(model, model.base_model_prefix)(images, **more).last_hidden_state
    return dict(features=tokens, logits=model(images, **more).logits)


def _whole(encoder, images, interpolate: bool):
    """The tokens of whole images of a ViTMAE's encoder, which would shuffle and mask them."""
    import torch

    sites = images.shape[2] * images.shape[3] // encoder.config.patch_size**2
    noise = torch.arange(sites).expand(len(images), -1)
    ratio, encoder.config.mask_ratio = encoder.config.mask_ratio, 0.0
    tokens = encoder(images, noise, interpolate_pos_encoding=interpolate).last_hidden_state
    encoder.config.mask_ratio = ratio
    return tokens


def timm_outputs(settings: dict, path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """What timm makes of images with weights of ours; raises RuntimeError if not all of them, and
    they alone, are its own.
    """
    import torch

    script = golden("make_timm")
    model = script.import_timm()[1].VisionTransformer(**settings)
    tensors = {name: torch.from_numpy(array) for name, array in load_file(path).items()}
    model.load_state_dict(tensors, strict=True)
    return _numpy(script.outputs(model.eval(), torch.from_numpy(images)))


def hf_outputs(kind: str, folder: Path, images: np.ndarray, noise: np.ndarray | None) -> dict:
    """What transformers makes of images with a folder of ours; raises ValueError if not all of its
    arrays, and they alone, are its own.
    """
    import torch
    import transformers

    model, found = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    wrong = [*found["missing_keys"], *found["unexpected_keys"], *found["mismatched_keys"]]
    if wrong:
        raise ValueError(f"missing, unknown or of another shape: {wrong}")
    noise = None if noise is None else torch.from_numpy(noise)
    with torch.no_grad():
        inputs = torch.from_numpy(images).double()
        return _numpy(_outputs(model.eval().double(), inputs, noise, interpolate=False))


def official_file(folder: Path, path: Path) -> Path:
    """Writes the weights of `ViTMAEForPreTraining` in a folder (not of original names) as training
    by the official code saves them, arguments and all.
    """
    import torch

    arrays = official(load_file(folder / "model.safetensors"))
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    arguments = argparse.Namespace(model="mae_vit", mask_ratio=0.75, norm_pix_loss=True)
    torch.save({"model": tensors, "epoch": 799, "args": arguments}, path)
    return path


def _numpy(outputs: Mapping) -> dict[str, np.ndarray]:
    """As float32 arrays."""
    return {name: value.detach().numpy().astype(np.float32) for name, value in outputs.items()}
