"""Position tables: which grid of patches they are of, whether they are the sine-cosine ones that
are computed here, and how they come to another grid.
"""

import logging
import math

import jax.numpy as jnp
import numpy as np

from mae_jax.ops.posemb import with_prefix
from mae_jax.ops.resample import resample_positions
from mae_jax.spec import check_choice
from mae_jax.types import UserError

logger = logging.getLogger(__name__)

HOW = ("bicubic", "antialias", "recompute")
SLACK = 1e-5
"""By which sines and cosines differ that others computed in float32."""
HALVES = (np.dtype(np.float16), np.dtype(jnp.bfloat16))
"""Dtypes whose rounding stays in a table that is stored as float32 afterwards."""
Grid = tuple[int, int]


def with_class_row(table: np.ndarray, patch: int, sizes, name: str) -> np.ndarray:
    """A table [1 + L, D]; one without a row for the class token gets a row of zeros, which is what
    such networks (DeiT III, timm's no_embed_class) add to it: nothing.

    Args:
        table: [1 + L, D] or [L, D].
        patch: side in pixels.
        sizes: (height, width) of images that it may be of, or None.
        name: of the file, for messages.
    """
    grids = [(height // patch, width // patch) for height, width in filter(None, sizes)]
    fits = lambda count: count in map(math.prod, grids) or math.isqrt(count) ** 2 == count
    count = len(table)
    with_row, without = count - 1 in map(math.prod, grids), count in map(math.prod, grids)
    if with_row or (not without and (fits(count - 1) or not fits(count))):
        return table
    logger.warning(
        "%s has %d positions: taken as those of %d patches and none for the class token (as DeiT "
        "III), for which a row of zeros is the same; if one is the class token's, give "
        "--image-size H,W",
        *(name, count, count),
    )
    return np.concatenate([np.zeros_like(table[:1]), table])


def grids_of(count: int, patch: int, image, wanted) -> tuple[Grid, Grid]:
    """The grid of patches that positions are of, and the one that they shall be of.

    Args:
        count: number of patches.
        patch: side in pixels.
        image, wanted: (height, width) that the file says and that the user does, or None.

    Raises:
        UserError: rows and columns cannot be told.
    """
    if count < 1:
        raise UserError("the position embedding has one row: it is of no patches")
    for height, width in filter(None, (image, wanted)):
        if height % patch or width % patch:
            raise UserError(f"images of {height} x {width} are not whole patches of {patch}")
    grid = lambda size: (size[0] // patch, size[1] // patch)
    side = math.isqrt(count)
    if image is not None and math.prod(grid(image)) == count:
        old = grid(image)
    elif wanted is not None and math.prod(grid(wanted)) == count:
        old = grid(wanted)
    elif side * side == count:
        old = (side, side)
    else:
        raise UserError(
            f"which rows and columns do {count} patches have? Say --image-size H,W to "
            "mae-jax weights import"
        )
    return old, grid(wanted) if wanted is not None else old


def fitted(table: np.ndarray, old: Grid, new: Grid, how: str | None, *, dtype, decoder: bool):
    """The table for a grid; None if it is the one that is computed here.

    Args:
        table: [1 + L, D].
        old, new: rows and columns that it is of, and that are wanted.
        how: a name of `HOW`, or None.
        dtype: that it has in the file.
        decoder: whether the model has one, whose positions can only be computed.

    Raises:
        UserError: `how` is missing, or is not for this table.
    """
    if how is not None:
        check_choice("positions", how, HOW)
    if how is not None and old == new:
        raise UserError(f"--positions {how} is for another --image-size than that of the weights")
    fixed = is_fixed(table, old, dtype)
    if decoder and how not in (None, "recompute"):
        raise UserError(
            f"--positions {how} is for encoders, and this decoder's are sine-cosine: choose "
            "recompute, or leave the decoder out with --encoder-only"
        )
    if old == new or (fixed and how == "recompute"):
        return None if fixed else table
    if how in (None, "recompute"):
        more = ", or recompute (they are sine-cosine)" if fixed else ""
        raise UserError(
            f"the positions are of {old[0]} x {old[1]} patches and {new[0]} x {new[1]} are wanted: "
            "choose --positions bicubic (as official MAE and transformers), antialias (as timm)"
            f"{more}"
        )
    return np.asarray(resample_positions(jnp.asarray(table), old, new, kernel=how))


def is_fixed(table: np.ndarray, grid: Grid, dtype) -> bool:
    """Whether a table is the sine-cosine one, rounded to its dtype in the file or to a half."""
    return _rounds(table, with_prefix(grid, table.shape[1]), dtype)


def is_of_moco(table: np.ndarray, grid: Grid, dtype) -> bool:
    """Whether a table is MoCo v3's: sine-cosine as well, but the row in the first half."""
    halves = np.split(with_prefix(grid, table.shape[1]), 2, axis=1)
    return _rounds(table, np.concatenate(halves[::-1], axis=1), dtype)


def _rounds(table: np.ndarray, expected: np.ndarray, dtype) -> bool:
    """Whether each value is what the dtype, or one of `HALVES`, makes of one within `SLACK` of the
    expected one.
    """
    if table.shape != expected.shape:
        return False
    for rounded in (dtype, *HALVES):
        low, high = ((expected + d).astype(rounded).astype(np.float32) for d in (-SLACK, SLACK))
        if ((low <= table) & (table <= high)).all():
            return True
    return False


def check_decoder(table: np.ndarray | None, grid: Grid, name: str, dtype) -> None:
    """Raises UserError if a decoder has positions that cannot be computed here."""
    if table is not None and not is_fixed(table, grid, dtype):
        raise UserError(
            f"the decoder in {name} has positions that are not the sine-cosine ones: it has no "
            "place here, leave it out with --encoder-only"
        )
