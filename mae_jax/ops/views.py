"""Two views of each image for contrastive learning, with photometric augmentation on the device
(SimCLR, arXiv 2002.05709, appendix A; BYOL, arXiv 2006.07733, appendix B). The data loader applies
the random crop and flip.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mae_jax.ops import augment
from mae_jax.types import Batch, UserError


def photometric(
    key: jax.Array,
    images: jax.Array,
    *,
    jitter: Sequence[float],
    blur: float,
    solarize: float,
) -> jax.Array:
    """Color jitter with probability 0.8, grayscale with 0.2, then blur and solarization, each drawn
    per example.

    Args:
        images: [B, H, W, C] uint8.
        jitter: strengths of brightness, contrast, saturation and hue, see `augment.color_jitter`:
            (0.8, 0.8, 0.8, 0.2) in SimCLR on ImageNet and half of it on CIFAR,
            (0.4, 0.4, 0.2, 0.1) in BYOL and MoCo v3. If all are 0, grayscale is off, too. Images
            with other than 3 channels are never converted to gray, and need 0 for saturation and
            hue.
        blur, solarize: their probabilities, in [0, 1].

    Returns:
        [B, H, W, C] float32 in [0, 1].

    Raises:
        UserError: saturation or hue for images that are not RGB, or see `check_strengths`.
    """
    check_strengths(jitter, (blur, solarize))
    brightness, contrast, saturation, hue = jitter
    channels = images.shape[-1]
    if channels != 3 and (saturation or hue):
        raise UserError(
            f"jitter={tuple(jitter)}: images of {channels} channels have neither saturation nor "
            f"hue, set jitter=({brightness}, {contrast}, 0, 0)"
        )
    # One key for each operation: switching one off does not change the draws of the others.
    keys = jax.random.split(key, 4)
    images = images.astype(jnp.float32) / 255
    if any(jitter):
        images = augment.color_jitter(
            keys[0],
            images,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            probability=0.8,
        )
    if any(jitter) and channels == 3:
        images = augment.grayscale(keys[1], images, probability=0.2)
    if blur:
        images = augment.gaussian_blur(keys[2], images, probability=blur)
    if solarize:
        images = augment.solarize(keys[3], images, probability=solarize)
    return images


def check_strengths(jitter: Sequence[float], probabilities: Sequence[float]) -> None:
    """Raises UserError unless `jitter` is four strengths of at least 0, hue at most 0.5, and
    all probabilities are in [0, 1].
    """
    if len(jitter) != 4 or min(jitter) < 0 or jitter[3] > 0.5:
        raise UserError(
            f"jitter={tuple(jitter)}: give four numbers of at least 0, for brightness, contrast, "
            "saturation and hue, the last at most 0.5, e.g. (0.4, 0.4, 0.2, 0.1)"
        )
    if not all(0 <= probability <= 1 for probability in probabilities):
        raise UserError(f"probabilities {tuple(probabilities)} of blur and solarize: choose [0, 1]")


def two_views(batch: Batch, name: str) -> tuple[jax.Array, jax.Array]:
    """Returns 'image' and 'image2' of a batch, each [B, H, W, C] uint8.

    Args:
        name: name of the method, for the message.

    Raises:
        UserError: the batch has only one view.
    """
    if "image2" not in batch:
        raise UserError(f"{name} learns from two views of each image: set config.data.views=2")
    return batch["image"], batch["image2"]


def interleave(one: jax.Array, two: jax.Array) -> jax.Array:
    """Interleaves two views, [B, ...] each, to one batch [2 B, ...]. Example i has rows 2 i and
    2 i + 1, so that no row leaves its device.
    """
    return jnp.stack([one, two], axis=1).reshape(2 * len(one), *one.shape[1:])


def separate(both: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The inverse of `interleave`: [2 B, ...] to two views [B, ...]."""
    both = both.reshape(len(both) // 2, 2, *both.shape[1:])  # [B, 2, ...]
    return both[:, 0], both[:, 1]
