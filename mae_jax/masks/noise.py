"""Masks from colored noise (ColorMAE, arXiv 2407.13036), in any number of dimensions.

White noise, new for every example, is filtered with a difference of Gaussians, and the patches
where it is highest are masked. The authors crop patterns that were filtered in advance, and did not
publish the widths of their filters; those here are ours.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.masks import MaskContext, Strategy
from mae_jax.spec import check_choice

SIGMAS = {"green": (0.5, 2.0), "blue": (0.0, 1.0), "red": (1.0, math.inf)}
"""Standard deviations, in patches, of the two Gaussians whose difference filters the noise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Strategy):
    """Masks the peaks of noise of one color.

    Green noise has a band of frequencies around one cycle in 5.2 patches: masked and visible areas
    of one typical size. Blue noise has high frequencies: visible patches are spread evenly. Red
    noise has low ones: large areas.
    """

    color: str

    def score(self, key: jax.Array, context: MaskContext) -> jax.Array:
        """[B, L] float32."""
        grid = context.grid
        white = jax.random.normal(key, (context.batch, *grid))
        axes = tuple(range(1, white.ndim))
        # The noise is periodic: opposite edges of the grid are neighbors.
        spectrum = jnp.fft.rfftn(white, axes=axes) * response(self.color, grid)
        noise = jnp.fft.irfftn(spectrum, s=grid, axes=axes)  # [B, *grid]
        return noise.reshape(context.batch, context.length)


def response(color: str, grid: tuple[int, ...]) -> np.ndarray:
    """The filter of a color in the layout of `rfftn`, [*grid[:-1], grid[-1] // 2 + 1] float32.

    A Gaussian of standard deviation s has the Fourier transform exp(-2 pi^2 s^2 f^2), for f cycles
    per patch.
    """
    axes = [np.fft.fftfreq(n) for n in grid[:-1]] + [np.fft.rfftfreq(grid[-1])]
    squares = sum(f**2 for f in np.meshgrid(*axes, indexing="ij", sparse=True))
    narrow, wide = (
        np.exp(-2 * np.pi**2 * sigma**2 * squares) if sigma < math.inf else 0.0
        for sigma in SIGMAS[color]
    )
    return np.asarray(narrow - wide, np.float32)


def make(*, color: str = "green") -> Noise:
    """Masks from colored noise.

    Args:
        color: 'green', 'blue' or 'red', see `Noise`.

    Raises:
        UserError: an unknown color.
    """
    check_choice("mask noise: color", color, SIGMAS)
    return Noise(color=color)
