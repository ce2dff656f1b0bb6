"""Layouts of the weights of vision transformers in other libraries: one per file, whose `make()`
returns a `Layout`. `mae-jax weights export --format` and `import --layout` name one.
"""

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.spec import build, parse
from mae_jax.weights.layout import Row, Shape
from mae_jax.weights.model import Found, Model, Options

Rows = Sequence[Row]
"""A table of names for both directions, see `layout.py`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The tables of a layout, and the JSON files of its folders."""

    readable: Sequence[Rows]
    """Tables to read a file with: the one that names most of its arrays is used. Each must name
    'encoder/embed/kernel', in the form 'patch', or 'clip_patch' of three sides."""
    networks: str = ""
    """The networks that it reads, for messages: "transformers' ViT"."""
    package: str = ""
    """The package that loads what is written, for model cards; '': none that is known."""
    class_token: bool = True
    """Whether all of its networks have a class token."""
    unused: str = ""
    """Regex of the names of arrays that are no weights, such as numbers of positions."""
    choose: Callable[[Model], Rows] | None = None
    """Returns the table to write a model with, or raises UserError if the layout cannot hold it;
    None: the first readable one. `model.image` is the [*space, C] of its images."""
    describe: Callable[[Model], Mapping[str, Any]] | None = None
    """Returns the JSON files of a folder with model.safetensors, name -> content; may raise
    UserError. None: the layout is one file, .safetensors or .pth, not a folder."""
    encoder: str = "vit"
    """Kind of the encoder of written models, the first item of its `architecture`."""
    axes: int = 2
    """Spatial axes of the images of written models. With two, a 'vit' has one class token, square
    patches and sine-cosine or learned positions, which the layout holds; `choose` checks others."""
    prepare: Callable[[Model], Model] | None = None
    """Returns the model, which `choose` has accepted, with arrays of ours that the table lacks
    merged into others."""
    partial: bool = False
    """Leave out arrays that the written table does not name, instead of refusing the model."""
    infer: Callable[[Found, dict[str, np.ndarray], Shape, Options], Model] | None = None
    """Returns the model of arrays in our names, from the contents of their file, the arrays, the
    sides of a patch and channels, and the user's options; may raise UserError. None: `infer.py`,
    for vision transformers with a class token."""


def find(name: str) -> Layout:
    """The layout with this name, of this package or of a user's module.

    Raises:
        UserError: there is none; the message lists the names.
    """
    return build(name, "weights.layouts", Layout)


def names() -> list[str]:
    """Names of the layouts of this package."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def for_model(model: Model) -> list[str]:
    """Names of the layouts to write a model in, one of each package: that for encoders of its kind
    and for images of its rank, or else the first.
    """
    encoder, axes = model.args.get("encoder"), len(model.image or (0, 0, 0)) - 1
    kind = parse(encoder)[0].name if encoder else ""
    known, chosen = {name: find(name) for name in names()}, {}
    fits = lambda name: (known[name].encoder, known[name].axes) == (kind, axes)
    for name in sorted(known, key=lambda name: not fits(name)):
        if known[name].package:
            chosen.setdefault(known[name].package, name)
    return [*chosen.values()]


def tables(name: str | None) -> list[tuple[Layout, Rows]]:
    """The tables to read a file with, each with its layout: of one layout, or of all here."""
    chosen = map(find, [name] if name else names())
    return [(layout, rows) for layout in chosen for rows in layout.readable]
