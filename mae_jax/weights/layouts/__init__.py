"""How others lay out the weights of a vision transformer: one layout a file, whose `make()` returns
a `Layout`. `mae-jax weights export --format` and `import --layout` name one.
"""

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mae_jax.spec import build
from mae_jax.weights.layout import Row
from mae_jax.weights.model import Model

Rows = Sequence[Row]
"""A table of names: both directions read it, see `layout.py`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The tables of a layout, and what its files hold besides arrays."""

    readable: Sequence[Rows]
    """Tables that a file is tried against: the one that names most of its arrays is its own. Each
    names 'encoder/embed/kernel', in the form 'patch'."""
    choose: Callable[[Model], Rows] | None = None
    """The table to write a model by, which raises UserError if the layout has no place for it;
    None: always the first readable one. `model.image` is the [H, W, C] of its images."""
    describe: Callable[[Model], Mapping[str, Any]] | None = None
    """The JSON files beside model.safetensors, name -> content, which may raise UserError too;
    None: a layout is one file, .safetensors or .pth, and no folder."""
    partial: bool = False
    """Leave out what the written table has no place for, instead of refusing the model."""


def find(name: str) -> Layout:
    """The layout of a name, of this package or of a user's module.

    Raises:
        UserError: there is none; names those that there are.
    """
    return build(name, "weights.layouts", Layout)


def tables(name: str | None) -> list[Rows]:
    """The tables that a file is tried against: those of one layout, or of all in this package."""
    names = [name] if name else [found.name for found in pkgutil.iter_modules(__path__)]
    return [rows for name in names for rows in find(name).readable]
