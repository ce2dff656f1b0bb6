"""A target: the mean color of each patch, relative to the mean color of the training images."""

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
    """Mean colors: the decoder predicts C values for each patch."""

    sample: ClassVar[int] = 16

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """One value per channel."""
        return channels

    def initial(self, images: jax.Array, patch: tuple[int, ...]) -> Constants:
        """'mean' [C]: a placeholder with the shape of what `constants` computes."""
        return {"mean": jnp.ones(images.shape[-1])}

    def constants(self, sample: Mapping[str, np.ndarray], patch: tuple[int, ...]) -> Constants:
        """'mean' [C] of `sample` training images, plus 1 so that it is never zero."""
        images = sample["image"]
        return {"mean": images.reshape(-1, images.shape[-1]).mean(axis=0) + 1.0}

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Targets [B, K, C] float32 of the patches that the loss scores."""
        patches = context.take(patchify(images, context.patch))  # [B, K, pixels * C]
        pixels = math.prod(context.patch)
        colors = patches.reshape(*patches.shape[:2], pixels, -1).astype(jnp.float32).mean(axis=2)
        return colors / constants["mean"]  # [B, K, C]


def make() -> MeanColor:
    """Makes the target. In a config: method.args.target='my_project.target'"""
    return MeanColor()
