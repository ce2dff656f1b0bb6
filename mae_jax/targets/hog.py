"""Histograms of oriented gradients as targets (MaskFeat, Wei et al. 2021, arXiv 2112.09133), with
the definition of the authors' code.

Sobel gradients of each channel vote for one of nine unsigned orientations, weighted by their
magnitude and a Gaussian window of two by two cells. The histogram of a cell has length 1.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.targets import Constants, Target, TargetContext
from mae_jax.types import UserError

BINS = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class HOG(Target):
    """The histograms of the cells of a patch; `make` documents the field."""

    cell: int

    drawable: ClassVar[bool] = True

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Channels times bins times the cells of a patch: 108 for 16 x 16 pixels and 3 channels.

        Raises:
            UserError: images of another rank than 2, or a patch that cells do not divide.
        """
        rows, columns = self._cells(patch)
        return channels * BINS * rows * columns

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Histograms [B, K, V] float32, V in the order (channel, bin, cell row, cell column)."""
        x = histograms(images, self.cell)  # [B, rows, columns, C, bins]
        rows, columns = self._cells(context.patch)
        x = x.reshape(len(x), x.shape[1] // rows, rows, x.shape[2] // columns, columns, -1, BINS)
        x = x.transpose(0, 1, 3, 5, 6, 2, 4)  # [B, grid rows, grid columns, C, bins, rows, columns]
        return context.take(x.reshape(len(x), x.shape[1] * x.shape[2], -1))

    def to_pixels(
        self,
        constants: Constants,
        prediction: jax.Array,
        images: jax.Array,
        context: TargetContext,
    ) -> jax.Array:
        """Draws a line for each bin, perpendicular to its gradient and as bright as its value."""
        rows, columns = self._cells(context.patch)
        x = prediction.reshape(*prediction.shape[:2], images.shape[-1], BINS, rows, columns)
        picture = 0.0  # the brightest line of each pixel, [B, L, rows, cell, columns, cell, C]
        for b, glyph in enumerate(glyphs(self.cell)):
            line = jnp.einsum("blcij,yx->bliyjxc", x[:, :, :, b], glyph)
            picture = jnp.maximum(picture, line)
        pixels = jnp.minimum(picture, 1).reshape(*x.shape[:2], -1)  # [B, L, P] in [0, 1]
        return context.normalize(255 * pixels, pixels=math.prod(context.patch))

    def _cells(self, patch: tuple[int, ...]) -> tuple[int, int]:
        """Number of cells along the height and the width of a patch."""
        if len(patch) != 2:
            raise UserError(
                f"hog is for images [H, W, C], and these have {len(patch)} axes: set target=pixels"
            )
        if any(side % self.cell for side in patch):
            raise UserError(
                f"hog(cell={self.cell}): cells do not divide patches of {patch[0]} x {patch[1]} "
                f"pixels: set cell to a divisor, e.g. hog(cell={np.gcd(*patch)})"
            )
        return patch[0] // self.cell, patch[1] // self.cell


def histograms(images: jax.Array, cell: int) -> jax.Array:
    """Histograms of all cells.

    The authors' code takes normalized images; this one bytes, whose gradients are exact. The
    results are equal: the mean cancels in the gradient, and the scale of a channel in the length.

    Args:
        images: [B, H, W, C] uint8, of sides that are multiples of `cell`.
        cell: side of a cell in pixels.

    Returns:
        [B, H / cell, W / cell, C, 9] float32, of length 1 along the last axis, or 0 without any
        gradient.
    """
    batch, height, width, channels = images.shape
    x = jnp.pad(images.astype(jnp.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    rows = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]  # [B, H, W + 2, C], smoothed along the height
    columns = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]  # [B, H + 2, W, C]
    gx, gy = rows[:, :, :-2] - rows[:, :, 2:], columns[:, :-2] - columns[:, 2:]  # [B, H, W, C]
    # The arguments are in this order in the authors' code.
    bins = jnp.floor(jnp.arctan2(gx, gy) / np.pi * BINS) % BINS
    votes = jnp.sqrt(gx**2 + gy**2) * window((height, width), cell)[:, :, None]
    shape = (batch, height // cell, cell, width // cell, cell, channels)
    bins, votes = bins.reshape(shape), votes.reshape(shape)
    # XLA fuses the comparison into the sum. [B, rows, columns, C, bins]
    counts = [jnp.sum(jnp.where(bins == b, votes, 0), axis=(2, 4)) for b in range(BINS)]
    counts = jnp.stack(counts, axis=-1)
    length = jnp.linalg.norm(counts, axis=-1, keepdims=True)
    return counts / jnp.maximum(length, 1e-12)


def window(shape: tuple[int, int], cell: int) -> np.ndarray:
    """Weights [H, W] float32: a Gaussian of side 2 `cell` and deviation `cell`, repeated."""
    offsets = np.arange(2 * cell) - (2 * cell - 1) / 2
    gaussian = np.exp(-0.5 * (offsets / cell) ** 2)
    gaussian /= gaussian.sum()
    height, width = (np.resize(gaussian, side) for side in shape)
    return np.outer(height, width).astype(np.float32)


def glyphs(cell: int) -> np.ndarray:
    """Pictures [9, cell, cell] float32 in [0, 1]: a line through the center for each bin, in the
    direction of the edge.
    """
    y, x = np.mgrid[:cell, :cell] - (cell - 1) / 2  # [cell, cell]
    angles = (np.arange(BINS)[:, None, None] + 0.5) * np.pi / BINS
    distances = np.abs(x * np.sin(angles) + y * np.cos(angles))  # along the gradient
    return np.clip(1 - distances, 0, 1).astype(np.float32)


def make(cell: int = 8) -> HOG:
    """Histograms of oriented gradients of the cells of each masked patch.

    Args:
        cell: side of a cell in pixels; it must divide the patch.

    Raises:
        UserError: no positive side.
    """
    if cell < 1:
        raise UserError(f"hog(cell={cell}): the side of a cell must be at least 1 pixel")
    return HOG(cell=cell)
