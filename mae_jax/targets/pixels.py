"""The pixels of masked patches as targets, optionally normalized per patch (arXiv 2111.06377,
section 4.1).
"""

import dataclasses
import math
from typing import ClassVar

import jax

from mae_jax.ops import losses
from mae_jax.ops.patches import patchify
from mae_jax.targets import Constants, Target, TargetContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels(Target):
    """The pixels of a patch, normalized like the encoder's inputs."""

    normalize: bool
    """Whether each patch is also normalized by its own mean and standard deviation."""

    drawable: ClassVar[bool] = True
    exact: ClassVar[bool] = True

    @property
    def relative(self) -> bool:
        """See `Target`."""
        return self.normalize

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Number of pixels of a patch times channels."""
        return math.prod(patch) * channels

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Pixels of the patches that count in the loss, [B, K, V] float32."""
        # Gathered as bytes, which moves a quarter of the memory of float32. [B, K, V]
        patches = context.take(patchify(images, context.patch))
        patches = context.normalize(patches, pixels=math.prod(context.patch))
        return losses.normalize_patches(patches) if self.normalize else patches

    def to_pixels(
        self,
        constants: Constants,
        prediction: jax.Array,
        images: jax.Array,
        context: TargetContext,
    ) -> jax.Array:
        """Undoes the per-patch normalization, with the mean and deviation of the TRUE patches."""
        if not self.normalize:
            return prediction
        mean, std = losses.patch_statistics(self.patches(images, context))  # [B, L, 1]
        return prediction * std + mean

    def patches(self, images: jax.Array, context: TargetContext) -> jax.Array:
        """All patches [B, L, P] of the normalized images."""
        return patchify(context.normalize(images), context.patch)


def make(normalize: bool = True) -> Pixels:
    """The pixels of each masked patch.

    Args:
        normalize: normalize each patch by its own mean and standard deviation.
    """
    return Pixels(normalize=normalize)
