"""Position tables of imported weights: the grid of patches, detection of the sine-cosine tables
that we compute, and resizing to another grid.
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
"""Tolerance for sines and cosines that were computed in float32 elsewhere."""
HALVES = (np.dtype(np.float16), np.dtype(jnp.bfloat16))
"""Dtypes that a table may have been rounded to before it was stored as float32."""
Grid = tuple[int, int]


def with_class_row(table: np.ndarray, patch: int, sizes, name: str) -> np.ndarray:
    """A table [1 + L, D]. A table without a row for the class token gets a row of zeros, as such
    networks (DeiT III, timm's no_embed_class) add nothing to the class token.

    Args:
        table: [1 + L, D] or [L, D].
        patch: side in pixels.
        sizes: possible (height, width) of its images, each of them or None.
        name: of the file, for messages.
    """
    grids = [(height // patch, width // patch) for height, width in filter(None, sizes)]
    fits = lambda count: count in map(math.prod, grids) or math.isqrt(count) ** 2 == count
    count = len(table)
    with_row, without = count - 1 in map(math.prod, grids), count in map(math.prod, grids)
    if with_row or (not without and (fits(count - 1) or not fits(count))):
        return table
    logger.warning(
        "%s has %d positions: assuming %d patches and no position of the class token (as DeiT "
        "III), which gets a row of zeros; if one position is the class token's, pass "
        "--image-size H,W",
        *(name, count, count),
    )
    return np.concatenate([np.zeros_like(table[:1]), table])


def grids_of(count: int, patch: int, image, wanted) -> tuple[Grid, Grid]:
    """The grid of patches of a position table, and the grid to resize it to.

    Args:
        count: number of patches.
        patch: side in pixels.
        image, wanted: (height, width) from the file and from the user, or None.

    Raises:
        UserError: the numbers of rows and columns are ambiguous.
    """
    if count < 1:
        raise UserError("the position embedding has one row, so it holds no patches")
    for height, width in filter(None, (image, wanted)):
        if height % patch or width % patch:
            raise UserError(f"images of {height} x {width} are not divisible by patch={patch}")
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
            f"the grid of {count} patches is unknown: pass --image-size H,W to mae-jax weights "
            "import"
        )
    return old, grid(wanted) if wanted is not None else old


def fitted(table: np.ndarray, old: Grid, new: Grid, how: str | None, *, dtype, decoder: bool):
    """Resizes a table to another grid. Returns None for the sine-cosine table, which we compute.

    Args:
        table: [1 + L, D].
        old, new: rows and columns of the table, and of the result.
        how: a name of `HOW`, or None.
        dtype: of the table in the file.
        decoder: whether the model has a decoder, whose positions are always computed.

    Raises:
        UserError: `how` is missing, or does not apply to this table.
    """
    if how is not None:
        check_choice("positions", how, HOW)
    if how is not None and old == new:
        raise UserError(f"--positions {how} has no effect: --image-size is that of the weights")
    fixed = is_fixed(table, old, dtype)
    if decoder and how not in (None, "recompute"):
        raise UserError(
            f"--positions {how} is for encoders, and the decoder's positions are sine-cosine: "
            "choose recompute, or leave the decoder out with --encoder-only"
        )
    if old == new or (fixed and how == "recompute"):
        return None if fixed else table
    if how in (None, "recompute"):
        more = ", or recompute (they are sine-cosine)" if fixed else ""
        raise UserError(
            f"the position table is for {old[0]} x {old[1]} patches, not {new[0]} x {new[1]}: "
            "choose --positions bicubic (as official MAE and transformers), antialias (as timm)"
            f"{more}"
        )
    return np.asarray(resample_positions(jnp.asarray(table), old, new, kernel=how))


def learned(
    table: np.ndarray, patch: int, side: int, name: str, *, wanted: Grid | None, how: str | None
) -> tuple[np.ndarray, Grid]:
    """A learned table of square images, resized where other images are wanted, and (height, width)
    of its images.

    Args:
        table: [1 + L, D].
        patch, side: of a patch and of the images, in pixels.
        name: of the file, for messages.
        wanted: (height, width), or None: those of the table.
        how: a name of `HOW`, or None.

    Raises:
        UserError: the table is not of these images, or see `fitted`.
    """
    old, new = grids_of(len(table) - 1, patch, (side, side), wanted)
    if old != (side // patch,) * 2:
        raise UserError(
            f"{name}: config.json describes another model: image_size={side}, and the weights have "
            f"positions for {old[0]} x {old[1]} patches of {patch}"
        )
    if old != new or how is not None:
        resized = fitted(table, old, new, how, dtype=table.dtype, decoder=False)
        table = with_prefix(new, table.shape[1]) if resized is None else resized
    return table, (new[0] * patch, new[1] * patch)


def is_fixed(table: np.ndarray, grid: Grid, dtype) -> bool:
    """Whether a table is the sine-cosine one, up to rounding to its dtype or to 16 bits."""
    return _rounds(table, with_prefix(grid, table.shape[1]), dtype)


def is_of_moco(table: np.ndarray, grid: Grid, dtype) -> bool:
    """Whether a table is MoCo v3's: sine-cosine too, but with the row in the first half."""
    halves = np.split(with_prefix(grid, table.shape[1]), 2, axis=1)
    return _rounds(table, np.concatenate(halves[::-1], axis=1), dtype)


def _rounds(table: np.ndarray, expected: np.ndarray, dtype) -> bool:
    """Whether each value is within `SLACK` of the expected one before rounding to the dtype or to
    one of `HALVES`.
    """
    if table.shape != expected.shape:
        return False
    for rounded in (dtype, *HALVES):
        low, high = ((expected + d).astype(rounded).astype(np.float32) for d in (-SLACK, SLACK))
        if ((low <= table) & (table <= high)).all():
            return True
    return False


def check_decoder(table: np.ndarray | None, grid: Grid, name: str, dtype) -> None:
    """Raises UserError if the positions of a decoder are not sine-cosine."""
    if table is not None and not is_fixed(table, grid, dtype):
        raise UserError(
            f"the decoder in {name} has positions other than sine-cosine, which is not supported: "
            "leave it out with --encoder-only"
        )
