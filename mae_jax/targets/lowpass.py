"""Low-pass filtered images as targets: the network need not predict noise and fine texture (PixMIM,
Liu et al. 2023, arXiv 2303.02416).
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.ops import losses
from mae_jax.ops.patches import patchify
from mae_jax.targets import Constants, Target, TargetContext
from mae_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowPass(Target):
    """The pixels of a patch of the filtered image; `make` documents the fields."""

    radius: float
    normalize: bool

    drawable: ClassVar[bool] = True

    @property
    def relative(self) -> bool:
        """See `Target`."""
        return self.normalize

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Number of pixels of a patch times channels."""
        return math.prod(patch) * channels

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Filtered pixels of the patches that count in the loss, [B, K, V] float32."""
        patches = context.take(self._patches(images, context))
        return losses.normalize_patches(patches) if self.normalize else patches

    def to_pixels(
        self,
        constants: Constants,
        prediction: jax.Array,
        images: jax.Array,
        context: TargetContext,
    ) -> jax.Array:
        """Undoes the normalization, with the mean and deviation of the TRUE filtered patches."""
        if not self.normalize:
            return prediction
        mean, std = losses.patch_statistics(self._patches(images, context))  # [B, L, 1]
        return prediction * std + mean

    def _patches(self, images: jax.Array, context: TargetContext) -> jax.Array:
        """All patches [B, L, P] of the filtered, normalized images."""
        return patchify(low_pass(context.normalize(images), self.radius), context.patch)


def low_pass(images: jax.Array, radius: float) -> jax.Array:
    """Removes all frequencies above a radius, by an ideal filter and with periodic borders.

    The paper's code centers its disk half a frequency off, which makes the result complex. This
    filter is symmetric, so the result is real.

    Args:
        images: [B, *space, C] float32, of one to three spatial axes.
        radius: in cycles per pixel; a frequency is the Euclidean norm over the axes.

    Returns:
        [B, *space, C] float32.
    """
    *others, last = space = images.shape[1:-1]
    axes = tuple(range(1, images.ndim - 1))
    frequencies = [*map(np.fft.fftfreq, others), np.fft.rfftfreq(last)]
    squares = np.meshgrid(*(f**2 for f in frequencies), indexing="ij", sparse=True)
    kept = np.sqrt(sum(squares)) <= radius + 1e-9  # [*space], the last axis only up to half
    spectrum = jnp.fft.rfftn(images, axes=axes) * kept[..., None]
    return jnp.fft.irfftn(spectrum, s=space, axes=axes)


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
