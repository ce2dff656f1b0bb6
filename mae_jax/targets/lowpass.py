"""Low-pass filtered images as targets: the network need not predict noise and fine texture (PixMIM,
Liu et al. 2023, arXiv 2303.02416).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.ops import losses
from mae_jax.ops.patches import patchify
from mae_jax.targets import Constants, TargetContext
from mae_jax.targets.pixels import Pixels
from mae_jax.types import UserError

EPSILON = 1e-9
"""Keeps frequencies that equal the radius but for rounding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowPass(Pixels):
    """The pixels of a patch of the filtered image; `make` documents the fields."""

    radius: float

    exact: ClassVar[bool] = False  # though all frames are predicted

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Filtered pixels of the patches that count in the loss, [B, K, V] float32."""
        patches = context.take(self.patches(images, context))
        return losses.normalize_patches(patches) if self.normalize else patches

    def patches(self, images: jax.Array, context: TargetContext) -> jax.Array:
        """All patches [B, L, P] of the filtered, normalized images."""
        return patchify(low_pass(context.normalize(images), self.radius), context.patch)


def low_pass(images: jax.Array, radius: float) -> jax.Array:
    """Removes all frequencies above a radius, by an ideal filter and with periodic borders.

    The paper's code centers its disk half a frequency off, which makes the result complex. This
    filter is symmetric, so the result is real. Matrix products with the few low frequencies are
    cheap, and keep the batch in shards, where XLA would gather it for an FFT.

    Args:
        images: [B, *space, C] float32.
        radius: in cycles per pixel; a frequency is the Euclidean norm over the axes.

    Returns:
        [B, *space, C] float32.
    """
    space = images.shape[1:-1]
    bases, frequencies = zip(*(fourier(side, radius) for side in space), strict=True)
    squares = np.meshgrid(*(f**2 for f in frequencies), indexing="ij", sparse=True)
    x = images
    for axis, basis in enumerate(bases, 1):
        x = _product(x, basis, axis)
    x = x * (np.sqrt(sum(squares)) <= radius + EPSILON)[..., None]  # [B, *frequencies, C]
    for axis, basis in enumerate(bases, 1):
        x = _product(x, basis.T, axis)
    return x


def fourier(side: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The cosines and sines [side, K] float32 of all frequencies up to a radius, as orthonormal
    columns, and their frequencies [K] in cycles per pixel.
    """
    cycles = np.arange(side // 2 + 1)
    cycles = cycles[cycles / side <= radius + EPSILON]
    angles = 2 * np.pi * np.outer(np.arange(side), cycles) / side
    # The sines of frequency 0 and of the highest frequency of an even side are zero.
    sines = (cycles > 0) & (2 * cycles < side)
    basis = np.concatenate([np.cos(angles), np.sin(angles[:, sines])], axis=1)
    basis /= np.linalg.norm(basis, axis=0)
    return basis.astype(np.float32), np.concatenate([cycles, cycles[sines]]) / side


def _product(x: jax.Array, matrix: np.ndarray, axis: int) -> jax.Array:
    """Multiplies an axis [..., n, ...] by a matrix [n, m]: [..., m, ...]."""
    return jnp.moveaxis(jnp.tensordot(x, matrix, (axis, 0), precision="highest"), -1, axis)


def make(radius: float = 0.18, normalize: bool = True) -> LowPass:
    """The pixels of each masked patch of the low-pass filtered image.

    Args:
        radius: highest frequency, in cycles per pixel: 0.5 is the highest along an axis. The
            paper's is 40 cycles in 224 pixels, 0.18.
        normalize: normalize each patch by its own mean and standard deviation.

    Raises:
        UserError: a radius of zero or less, or one above all frequencies.
    """
    if not 0 < radius < 1:
        raise UserError(f"lowpass(radius={radius}): choose cycles per pixel in (0, 1), e.g. 0.18")
    return LowPass(radius=radius, normalize=normalize)
