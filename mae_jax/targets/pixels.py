"""The pixels of masked patches, as they are or normalized (arXiv 2111.06377, section 4.1)."""

import dataclasses
import math
from typing import ClassVar

import jax

from mae_jax.ops import losses
from mae_jax.ops.patches import patchify
from mae_jax.targets import Constants, Target, TargetContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels(Target):
    """Pixels as the encoder sees them."""

    normalize: bool
    """Whether the mean and deviation of each patch are removed."""

    drawable: ClassVar[bool] = True

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Pixels of a patch times channels."""
        return math.prod(patch) * channels

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """[B, K, width] float32."""
        patches = context.take(patchify(images, context.patch))  # bytes [B, K, width]
        patches = context.normalize(patches, pixels=math.prod(context.patch))
        return losses.normalize_patches(patches) if self.normalize else patches

    def to_pixels(
        self, constants: Constants, prediction: jax.Array, patches: jax.Array
    ) -> jax.Array:
        """By means of the TRUE mean and deviation of each patch, if they were removed."""
        if not self.normalize:
            return prediction
        mean, std = losses.patch_statistics(patches)
        return prediction * std + mean


def make(normalize: bool = True) -> Pixels:
    """Pixels of each masked patch.

    Args:
        normalize: remove the mean and deviation of each patch.
    """
    return Pixels(normalize=normalize)
