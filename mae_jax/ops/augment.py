"""Photometric augmentation and label mixing on the device: color jitter, gray, blur and solarize
with torchvision's definitions, as SimCLR (arXiv 2002.05709, appendix A) and BYOL (arXiv
2006.07733, appendix B) compose them, mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) with
timm's.

Images are float32 [B, H, W, C], for mixing [B, *space, C], in [0, 1], before and after. Every
example has draws of its own (mixing has one draw for the batch, as timm has), which depend on the
key and the batch size and not on the devices. Options are Python numbers; the rest may be traced.
"""

import jax
import jax.numpy as jnp

from mae_jax.ops import color
from mae_jax.types import UserError

SIGMA = (0.1, 2.0)
"""Range of the standard deviation of a blur, in pixels."""
THRESHOLD = 0.5
"""The lowest value that `solarize` inverts."""


def color_jitter(
    key: jax.Array,
    images: jax.Array,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    probability: float = 1.0,
) -> jax.Array:
    """Random brightness, contrast, saturation and hue, in a random order: torchvision's
    `ColorJitter`. Values are clipped to [0, 1] after each of the four.

    Args:
        images: [B, H, W, C]; three channels if saturation or hue is not 0.
        brightness, contrast, saturation: the factor is uniform in [max(0, 1 - x), 1 + x]; 0 is
            none. 0.8 in SimCLR, 0.4, 0.4 and 0.2 in BYOL.
        hue: the shift is uniform in [-hue, hue] turns, at most 0.5; 0 is none. 0.2 in SimCLR.
        probability: that an example is changed at all. 0.8 in SimCLR.

    Raises:
        UserError: not float32, not three channels, or a number out of its range.
    """
    _check(images, probability=probability)
    strengths = (brightness, contrast, saturation, hue)
    for name, strength in zip(color.ADJUSTMENTS, strengths):
        top = 0.5 if name == "hue" else float("inf")
        if not 0 <= strength <= top:
            raise UserError(f"{name} {strength} is outside [0, {top}]")
    if saturation or hue:
        _check_rgb(images, "saturation or hue")
    draw_key, coin_key = jax.random.split(key)
    kinds, amounts = _draw_jitter(draw_key, len(images), strengths)
    changed = images
    for kind, amount in zip(kinds, amounts):
        changed = color.adjust(changed, kind, amount, hue=hue > 0)
    return _sometimes(coin_key, probability, changed, images)


def _draw_jitter(key, batch, strengths):
    """The adjustments of each example in its order: kinds [N, B] int, and amounts [N, B], where N
    counts the strengths that are not 0.
    """
    used = jnp.array([kind for kind in range(4) if strengths[kind]], jnp.int32)
    strength = jnp.array(strengths, jnp.float32)
    middle = jnp.array([1.0, 1.0, 1.0, 0.0])
    lowest = (middle - strength).at[:3].max(0)
    order_key, amount_key = jax.random.split(key)
    order = jnp.argsort(jax.random.uniform(order_key, (batch, len(used))), axis=1)
    kinds = used[order]
    amounts = jax.random.uniform(amount_key, (batch, 4), minval=lowest, maxval=middle + strength)
    return kinds.T, jnp.take_along_axis(amounts, kinds, axis=1).T


def grayscale(key: jax.Array, images: jax.Array, *, probability: float) -> jax.Array:
    """Takes the color out of some examples: all channels become the luminance 0.2989 R + 0.587 G
    + 0.114 B (ITU-R 601; torchvision's `RandomGrayscale`). 0.2 of them in SimCLR.

    Args:
        images: [B, H, W, 3].
        probability: that an example is changed.

    Raises:
        UserError: not float32, not three channels, or a probability outside [0, 1].
    """
    _check(images, probability=probability)
    _check_rgb(images, "grayscale")
    return _sometimes(key, probability, color.luminance(images), images)


def gaussian_blur(key: jax.Array, images: jax.Array, *, probability: float) -> jax.Array:
    """Gaussian blur of random width, with reflected borders: torchvision's `GaussianBlur`. An
    example's standard deviation is uniform in `SIGMA`; the kernel is SimCLR's: a tenth of the
    shorter side, made odd (23 for 224 pixels), but 3 at least.

    Args:
        images: [B, H, W, C].
        probability: that an example is changed. 0.5 in SimCLR.

    Raises:
        UserError: not float32, or a probability outside [0, 1].
    """
    _check(images, probability=probability)
    sigma_key, coin_key = jax.random.split(key)
    sigmas = jax.random.uniform(sigma_key, images.shape[:1], minval=SIGMA[0], maxval=SIGMA[1])
    blurred = _blurred(images, sigmas, max(1, min(images.shape[1:3]) // 20))
    return _sometimes(coin_key, probability, blurred, images)


def _blurred(images, sigmas, radius):
    """Images [B, H, W, C] blurred with standard deviations [B], by kernels of 2 radius + 1 taps."""
    rows, columns = (_blur_matrix(sigmas, side, radius) for side in images.shape[1:3])
    blurred = jnp.einsum("byv,bxu,bvuc->byxc", rows, columns, images, precision="highest")
    return jnp.clip(blurred, 0, 1)


def _blur_matrix(sigmas, side, radius):
    """[B, side, side]: entry (i, j) is pixel j's weight in blurred pixel i.

    Matrix products, because every example has a kernel of its own: XLA's convolution with a group
    for each example took ten times as long on CPU.
    """
    i, j = jnp.arange(side)[:, None], jnp.arange(side)
    sigmas = sigmas[:, None, None]
    tap = lambda offset: jnp.where(
        jnp.abs(offset) <= radius, jnp.exp(-0.5 * (offset / sigmas) ** 2), 0
    )
    # A pixel is seen directly and, except for the outermost, in the mirrors at both borders.
    weights = tap(i - j) + (j > 0) * tap(i + j) + (j < side - 1) * tap(2 * (side - 1) - i - j)
    return weights / weights.sum(axis=2, keepdims=True)


def solarize(key: jax.Array, images: jax.Array, *, probability: float) -> jax.Array:
    """Inverts the values from `THRESHOLD` on, x -> 1 - x: torchvision's `RandomSolarize`. In BYOL
    0.2 of one of the two views.

    Args:
        images: [B, H, W, C].
        probability: that an example is changed.

    Raises:
        UserError: not float32, or a probability outside [0, 1].
    """
    _check(images, probability=probability)
    return _sometimes(key, probability, jnp.where(images >= THRESHOLD, 1 - images, images), images)


def soft_targets(labels: jax.Array, classes: int, smoothing: float) -> jax.Array:
    """Labels as distributions, smoothed as in timm: smoothing / classes everywhere, and
    1 - smoothing more at the label.

    Args:
        labels: [B] int, in [0, classes).
        classes: how many there are.
        smoothing: the share that is spread over all classes, in [0, 1]. 0.1 when MAE fine-tunes.

    Returns:
        [B, classes] float32 whose rows sum to 1.

    Raises:
        UserError: a smoothing outside [0, 1].
    """
    if not 0 <= smoothing <= 1:
        raise UserError(f"smoothing {smoothing} is outside [0, 1]")
    return jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mixup_cutmix(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
) -> tuple[jax.Array, jax.Array]:
    """Mixup (arXiv 1710.09412) or CutMix (arXiv 1905.04899), by chance where both are on: timm's
    `Mixup` in mode 'batch' with corrected lambda.

    The partner of an example is at its place in the reversed batch. Mixup is lam * x +
    (1 - lam) * x[::-1] of images and labels alike; CutMix pastes a rectangle (interval, box) of
    x[::-1] into x, 1 - lam of the image before the borders cut it, and mixes labels by its share.

    Args:
        images: [B, *space, C].
        labels: [B, classes] float32, soft targets.
        mixup_alpha: lambda is from Beta(alpha, alpha); 0 turns mixup off. 0.8 when MAE fine-tunes.
        cutmix_alpha: likewise for CutMix, 1.0 when MAE fine-tunes. Both 0: nothing is mixed.

    Returns:
        mixed images and labels, of the same shapes.

    Raises:
        UserError: images not float32, labels that are no soft targets for them, or a number out
            of its range.
    """
    _check(images)
    if labels.ndim != 2 or len(labels) != len(images):
        raise UserError(
            f"labels of shape {labels.shape} are no soft targets [{len(images)}, classes] for "
            f"{len(images)} images: see soft_targets"
        )
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if not alpha >= 0:
            raise UserError(f"{name} {alpha} is not 0 (off) or more")
    if not mixup_alpha and not cutmix_alpha:
        return images, labels
    share_cut = 0.5 if mixup_alpha and cutmix_alpha else float(cutmix_alpha > 0)
    switch_key, lam_key, box_key = jax.random.split(key, 3)
    space = images.shape[1:-1]
    cut = jax.random.bernoulli(switch_key, share_cut, (1,) * (1 + len(space)))
    alpha = jnp.where(cut, float(cutmix_alpha), float(mixup_alpha))
    lam = jax.random.beta(lam_key, alpha, alpha)
    outside = ~_box(box_key, lam, space)  # [1, *space]
    own = jnp.where(cut, outside, lam)[..., None]
    share = jnp.where(cut, outside.mean(), lam).reshape(1, 1)
    return (
        images * own + images[::-1] * (1 - own),
        labels * share + labels[::-1] * (1 - share),
    )


def _box(key, lam, space):
    """True inside a box [1, *space] of about 1 - lam [1, ..., 1] of the image and its proportions,
    centered anywhere, cut off at the borders: in two dimensions timm's `rand_bbox`.
    """
    mask, rank = True, len(space)
    root = jnp.sqrt(1 - lam) if rank == 2 else (1 - lam) ** (1 / rank)
    for axis, side in enumerate(space):
        # timm cuts half a side on either side of the center, both rounded down.
        half = jnp.floor(jnp.floor(side * root) / 2)
        center = jax.random.randint(jax.random.split(key, rank)[axis], lam.shape, 0, side)
        place = jnp.arange(side).reshape([1, *(-1 if a == axis else 1 for a in range(rank))])
        mask &= (center - half <= place) & (place < center + half)
    return mask


def _sometimes(key, probability, changed, images):
    """What is `changed` for a share of the examples, what it was for the others."""
    coins = jax.random.bernoulli(key, float(probability), (len(images), 1, 1, 1))
    return jnp.where(coins, changed, images)


def _check(images, **probabilities):
    if images.dtype != jnp.float32:
        raise UserError(f"images are {images.dtype}: augmentation needs float32 in [0, 1]")
    for name, probability in probabilities.items():
        if not 0 <= probability <= 1:
            raise UserError(f"{name} {probability} is outside [0, 1]")


def _check_rgb(images, what):
    if images.shape[-1] != 3:
        raise UserError(f"{what} needs 3 channels (RGB), but images have {images.shape[-1]}")
