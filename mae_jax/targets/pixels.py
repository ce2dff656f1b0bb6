"""The pixels of masked patches as targets, optionally normalized per patch (arXiv 2111.06377,
section 4.1), or per patch and channel as in VideoMAE (arXiv 2203.12602); of all of their frames, or
of some as in MAE_ST (arXiv 2205.09113).
"""

import dataclasses
import math
from typing import ClassVar

import jax
import numpy as np

from mae_jax.ops import losses
from mae_jax.ops.patches import patchify
from mae_jax.targets import Constants, Target, TargetContext
from mae_jax.types import UserError

CHANNELS = "channels"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels(Target):
    """The pixels of a patch, normalized like the encoder's inputs; `make` documents the fields."""

    normalize: bool | str
    frames: int = 0

    drawable: ClassVar[bool] = True

    @property
    def exact(self) -> bool:
        """See `Target`."""
        return not self.frames

    @property
    def relative(self) -> bool:
        """See `Target`."""
        return bool(self.normalize) and not self.frames

    def width(self, patch: tuple[int, ...], channels: int) -> int:
        """Number of predicted pixels of a patch times channels.

        Raises:
            UserError: more frames than a patch has, or a single value to normalize.
        """
        if self.frames > patch[0]:
            raise UserError(
                f"target pixels(frames={self.frames}): a patch of {' x '.join(map(str, patch))} "
                f"has {patch[0]} along its first axis: lower frames"
            )
        pixels = math.prod(self.predicted(patch))
        if self.normalize and pixels * (1 if self.normalize == CHANNELS else channels) == 1:
            raise UserError(
                f"target pixels(normalize={self.normalize}): a patch of one value has no "
                "deviation: set normalize=False, or choose a larger patch"
            )
        return pixels * channels

    def predicted(self, patch: tuple[int, ...]) -> tuple[int, ...]:
        """Sides of the predicted part of a patch."""
        return (self.frames or patch[0], *patch[1:])

    def cut(self, images: jax.Array, context: TargetContext) -> jax.Array:
        """The predicted pixels of all patches: images [B, *space, C] to [B, L, P * C]."""
        if self.frames:
            chosen = chosen_frames(images.shape[1], context.patch[0], self.frames)
            images = images[:, chosen]  # [B, T, H, W, C] to [B, T / side * frames, H, W, C]
        return patchify(images, self.predicted(context.patch))

    def make(self, constants: Constants, images: jax.Array, context: TargetContext) -> jax.Array:
        """Pixels of the patches that count in the loss, [B, K, V] float32."""
        # Gathered as bytes, which moves a quarter of the memory of float32. [B, K, V]
        patches = context.take(self.cut(images, context))
        if self.normalize == CHANNELS:
            return losses.normalize_channels(patches / 255, images.shape[-1])
        patches = context.normalize(patches, pixels=math.prod(self.predicted(context.patch)))
        return losses.normalize_patches(patches) if self.normalize else patches

    def to_pixels(
        self,
        constants: Constants,
        prediction: jax.Array,
        images: jax.Array,
        context: TargetContext,
    ) -> jax.Array:
        """Undoes the per-patch normalization, with the mean and deviation of the TRUE patches, and
        repeats frames where only some are predicted.
        """
        sides = self.predicted(context.patch)
        if self.normalize == CHANNELS:
            true = self.cut(images, context) / 255
            mean, std = losses.channel_statistics(true, images.shape[-1])  # [B, L, 1, C]
            shape = prediction.shape
            pixels = prediction.reshape(*shape[:-1], -1, images.shape[-1]) * std + mean
            prediction = context.normalize(255 * pixels.reshape(shape), pixels=math.prod(sides))
        elif self.normalize:
            mean, std = losses.patch_statistics(self.patches(images, context))  # [B, L, 1]
            prediction = prediction * std + mean
        if not self.frames:
            return prediction
        x = prediction.reshape(*prediction.shape[:-1], self.frames, -1)  # [B, L, frames, P C]
        shown = np.arange(context.patch[0]) * self.frames // context.patch[0]
        return x[:, :, shown].reshape(*prediction.shape[:-1], -1)

    def patches(self, images: jax.Array, context: TargetContext) -> jax.Array:
        """The predicted pixels [B, L, P * C] of all patches, normalized like the inputs."""
        pixels = math.prod(self.predicted(context.patch))
        return context.normalize(self.cut(images, context), pixels=pixels)


def chosen_frames(length: int, side: int, frames: int) -> np.ndarray:
    """Numbers of the predicted frames of a clip: evenly spaced, the first and the last among them,
    rounded down, as in MAE_ST: 0, 2, 4, 6, 8, 10, 12 and 15 of 16 frames in patches of two.

    Args:
        length: frames of the clip.
        side: frames of a patch.
        frames: predicted frames for each patch.
    """
    count = length // side * frames
    return np.arange(count) * (length - 1) // max(1, count - 1)


def make(normalize: bool | str = True, frames: int = 0) -> Pixels:
    """The pixels of each masked patch.

    Args:
        normalize: normalize each patch by its own mean and standard deviation: True, of all of its
            values; 'channels', of each channel, as VideoMAE does, with pixels in [0, 1]; or False.
        frames: number of frames that are predicted of each patch of a clip; 0: all.

    Raises:
        UserError: an invalid value.
    """
    if normalize not in (True, False, CHANNELS):
        raise UserError(f"target pixels(normalize={normalize}): choose True, False or {CHANNELS}")
    if frames < 0:
        raise UserError(f"target pixels(frames={frames}) must be 0, for all, or more")
    return Pixels(normalize=normalize, frames=frames)
