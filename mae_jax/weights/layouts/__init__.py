"""Layouts of the weights of vision transformers in other libraries: one per file, whose `make()`
returns a `Layout`. `mae-jax weights export --format` and `import --layout` name one.
"""

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.spec import build
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
    choose: Callable[[Model], Rows] | None = None
    """Returns the table to write a model with, or raises UserError if the layout cannot hold it;
    None: the first readable one. `model.image` is the [*space, C] of its images."""
    describe: Callable[[Model], Mapping[str, Any]] | None = None
    """Returns the JSON files of a folder with model.safetensors, name -> content; may raise
    UserError. None: the layout is one file, .safetensors or .pth, not a folder."""
    axes: int = 2
    """Spatial axes of the images of written models. With two, the vision transformer has one class
    token, square patches and sine-cosine or learned positions, which the layout holds; with others,
    `choose` checks the model."""
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


def tables(name: str | None) -> list[tuple[Layout, Rows]]:
    """The tables to read a file with, each with its layout: of one layout, or of all here."""
    names = [name] if name else [module.name for module in pkgutil.iter_modules(__path__)]
    return [(layout, rows) for layout in map(find, names) for rows in layout.readable]
