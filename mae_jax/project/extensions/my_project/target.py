"""A target: the mean color of each patch, as a share of that of the training images."""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.ops.patches import patchify
from mae_jax.targets import Constants, Target, TargetContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanColor(Target):
    """Predicts C numbers for each patch."""

    sample: ClassVar[int] = 16

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """One number a channel."""
        return channels

    def initial(self, patch: tuple[int, ...], channels: int) -> Constants:
        """The mean of the training images [C], measured before the first step."""
        return {"mean": jnp.ones(channels)}

    def constants(self, sample: Mapping[str, np.ndarray], patch: tuple[int, ...]) -> Constants:
        """Measured over `sample` training images."""
        images = sample["image"]
        return {"mean": images.reshape(-1, images.shape[-1]).mean(axis=0) + 1.0}

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """[B, K, C] float32 of the patches that are scored."""
        patches = context.take(patchify(images, context.patch))  # [B, K, pixels * C]
        pixels = math.prod(context.patch)
        colors = patches.reshape(*patches.shape[:2], pixels, -1).astype(jnp.float32).mean(axis=2)
        return colors / constants["mean"]


def make() -> MeanColor:
    """target='my_project.target'"""
    return MeanColor()
