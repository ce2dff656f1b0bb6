"""The part of a model card that shows how to load the model: in JAX, and in timm, transformers and
the official MAE code, as far as their layouts can hold it.
"""

from collections.abc import Mapping
from typing import Any

from mae_jax.sharing.facts import Facts
from mae_jax.spec import build
from mae_jax.types import UserError
from mae_jax.weights import layouts
from mae_jax.weights.export import Converted, convert
from mae_jax.weights.model import Model

LABELS = ("logits", "multilabel_logits", "prediction")
"""Outputs with a prediction for each image."""

JAX = """```python
import mae_jax

model = mae_jax.load({where!r})
{call}
```"""
TIMM = """```python
import timm
from safetensors.torch import load_file

model = timm.models.VisionTransformer(
{args}
)
model.load_state_dict(load_file({where!r}))
```"""
HF = """```python
from transformers import AutoImageProcessor, {kind}

processor = AutoImageProcessor.from_pretrained({where!r})
model = {kind}.from_pretrained({where!r})
```"""


def loading(facts: Facts, where: str, layout: str | None) -> list[str]:
    """Paragraphs on how to load a model.

    Args:
        where: path of the run or of the exported weights, or hf://org/name.
        layout: layout of the weights at `where`; None: those of a run.
    """
    offers, images = facts.method.offers(), "image" in facts.method.inputs
    call = "print(model.method.offers())  # names of its outputs, for model.predict"
    if images and set(LABELS) & set(offers) and layout is None:
        call = 'found = model.predict(["image.png"])  # by name; model.classes has the names'
    elif images and "features" in offers:
        call = 'features = model.features(["image.png"])  # [N, D] float32'
    paragraphs = ["With `mae_jax`:", JAX.format(where=where, call=call)]
    for name in layouts.for_model(facts.model):
        paragraphs += _of_layout(facts, name, where, layout)
    return paragraphs


def _of_layout(facts: Facts, name: str, where: str, layout: str | None) -> list[str]:
    """How to load a model in another package, or why it cannot."""
    chosen = layouts.find(name)
    package = chosen.package
    try:
        made, part = fitted(facts.model, name)
    except UserError as error:
        return [f"With {package}: not possible. {_sentence(str(error))}"]
    flag = " --encoder-only" if part else ""
    out = "exported" if chosen.describe else "exported.safetensors"
    what = f"With {package}" + (" (the encoder only):" if part else ":")
    command, written = f"--format {name}{flag} --out {out}", layout == name
    if layout is None:
        command = f"mae-jax weights export --run {where} {command}"
    else:  # readers have the exported weights, and not the run
        command = (
            f"mae-jax weights import {where} --out imported\n"
            f"mae-jax weights export --run imported {command}"
        )
    place = where.removeprefix("hf://") if written else out
    text = [what] if written else [what, f"```bash\n{command}\n```"]
    if package == "transformers":
        return [*text, HF.format(kind=made.files["config.json"]["architectures"][0], where=place)]
    if name == "timm":
        if where.startswith("hf://") and written:
            place = "model.safetensors"
        args = timm_args(facts.model, made)
        lines = "\n".join(f"    {key}={value!r}," for key, value in args.items())
        return [*text, TIMM.format(args=lines, where=place)]
    return text if not written else [f"{what} the names of the arrays are its."]


def fitted(model: Model, layout: str) -> tuple[Converted, bool]:
    """A model in another layout, and whether this is its encoder only.

    Raises:
        UserError: the layout cannot hold its encoder either.
    """
    try:
        return convert(model, layout), False
    except UserError as error:
        try:
            return convert(model, layout, encoder_only=True), True
        except UserError:
            raise error from None


def timm_args(model: Model, made: Converted) -> Mapping[str, Any]:
    """The arguments of timm's VisionTransformer for exported arrays."""
    network, arrays = build(model.args["encoder"], "models"), made.arrays
    classes = len(arrays["head.bias"]) if "head.bias" in arrays else 0
    pool = "avg" if classes and model.args["pool"] == "mean" else "token"
    args = dict(
        img_size=list(made.notes["image"]),
        patch_size=network.patch,
        in_chans=arrays["patch_embed.proj.weight"].shape[1],
        num_classes=classes,
        global_pool=pool,
        embed_dim=network.width,
        depth=network.depth,
        num_heads=network.heads,
    )
    if network.mlp_ratio != 4:
        args["mlp_ratio"] = network.mlp_ratio
    if pool == "avg" and "fc_norm.weight" not in arrays:
        args["fc_norm"] = False
    return args


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
