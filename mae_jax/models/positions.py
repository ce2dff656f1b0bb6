"""Positions of patches in encoders and decoders: the fixed tables of `ops.posemb`, trained tables
that start as these, and learned ones, separate in space and time (MAE_ST, arXiv 2205.09113).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mae_jax.ops.posemb import flat_sincos, sincos
from mae_jax.types import UserError

KINDS = ("sincos", "flat", "separable")
INIT = nn.initializers.normal(0.02)
"""Of separable positions; MAE_ST's is the same, truncated at 100 standard deviations."""


class Positions(NamedTuple):
    """What is added to the tokens of an image."""

    prefix: jax.Array
    """[prefix, D], to class tokens."""
    patches: jax.Array
    """[L, D]."""


def fixed(
    kind: str, grid: tuple[int, ...], width: int, prefix: int = 0, extent: Sequence[float] = ()
) -> np.ndarray:
    """A fixed table [prefix + L, D] float32, zero for class tokens.

    Args:
        kind: 'sincos' or 'flat', see `models.vit.make`.
        extent: see `sincos`.
    """
    table = flat_sincos(grid, width) if kind == "flat" else sincos(grid, width, extent)
    return np.pad(table, ((prefix, 0), (0, 0)))


def positions(
    module: nn.Module,
    grid: tuple[int, ...],
    prefix: int = 0,
    *,
    learned: bool = False,
    extent: Sequence[float] = (),
) -> Positions:
    """The positions of a network, float32.

    Args:
        module: the network, whose fields are `width`, D, and `positions`, one of `KINDS`. It gets
            the parameters, if there are any: 'positions' [prefix + L, D], or 'positions_time'
            [T, D], 'positions_space' [L / T, D] and 'positions_class' [prefix, D]. Call this
            inside of its `nn.compact`.
        grid: number of patches along each axis, the first one is time.
        prefix: number of class tokens.
        learned: train the table. Separable positions are always trained.
        extent: see `sincos`.

    Raises:
        UserError: separable positions on a grid of one axis.
    """
    kind, width = module.positions, module.width
    if kind != "separable":
        table = jnp.asarray(fixed(kind, grid, width, prefix, extent))
        if learned:
            table = module.param("positions", lambda key: table)
        return Positions(table[:prefix], table[prefix:])
    if len(grid) < 2:
        raise UserError(
            "positions=separable are of space and time: images of one axis need sincos or flat"
        )
    steps, places = grid[0], int(np.prod(grid[1:]))
    time = module.param("positions_time", INIT, (steps, width))
    space = module.param("positions_space", INIT, (places, width))
    table = (time[:, None] + space).reshape(-1, width)  # [T, L / T, D] to [L, D]
    if not prefix:
        return Positions(jnp.zeros((0, width)), table)
    return Positions(module.param("positions_class", INIT, (prefix, width)), table)


def check_positions(
    name: str, kind: str, spacing: Sequence[float] = (), patch: Sequence[int] = ()
) -> None:
    """Raises UserError unless these are valid options of a network; see `models.vit.make`."""
    if kind not in KINDS:
        raise UserError(f"{name}: positions={kind} is none of {', '.join(KINDS)}")
    if not spacing:
        return
    if kind != "sincos":
        raise UserError(f"{name}: spacing is for positions=sincos, not for positions={kind}")
    if len(spacing) < 2 or len(patch) not in (1, len(spacing)) or min(spacing) <= 0:
        raise UserError(
            f"{name}: spacing={tuple(spacing)} must be the positive millimeters of a voxel along "
            "each axis of the images, such as (3.0, 1.0, 1.0)"
        )


def extent_of(spacing: Sequence[float], sides: Sequence[int]) -> tuple[float, ...]:
    """Millimeters of a patch along each axis, () without a spacing.

    Raises:
        UserError: images of another number of axes.
    """
    if spacing and len(spacing) != len(sides):
        raise UserError(
            f"spacing={tuple(spacing)} has {len(spacing)} numbers for images of {len(sides)} axes"
        )
    return tuple(mm * side for mm, side in zip(spacing, sides, strict=False))
