"""Data augmentation on the device. Color jitter, grayscale, blur and solarization follow
torchvision, for the pipelines of SimCLR (arXiv 2002.05709, appendix A) and BYOL (arXiv 2006.07733,
appendix B). Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) follow timm.

Inputs and outputs are float32 images in [0, 1], [B, H, W, C], or [B, *space, C] for mixing. Random
parameters are drawn per example (for mixing per batch, as in timm) and depend on the key and the
batch size, not on the number of devices. Options are Python numbers; arrays may be traced.
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
    """Adjusts brightness, contrast, saturation and hue in random order, as torchvision's
    `ColorJitter`. Values are clipped to [0, 1] after each adjustment.

    Args:
        images: [B, H, W, C]; three channels if saturation or hue is not 0.
        brightness, contrast, saturation: strengths s, for factors uniform in [max(0, 1 - s),
            1 + s]; 0 turns the adjustment off. 0.8 in SimCLR; 0.4, 0.4 and 0.2 in BYOL.
        hue: in [0, 0.5], for shifts uniform in [-hue, hue] turns; 0 turns it off. 0.2 in SimCLR.
        probability: probability that an example is changed. 0.8 in SimCLR.

    Raises:
        UserError: images that are not float32 or not RGB, or a number out of its range.
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
    """Kinds [N, B] int and amounts [N, B] of the N adjustments with nonzero strength, in the order
    in which each example applies them.
    """
    used = jnp.array([kind for kind in range(4) if strengths[kind]], jnp.int32)
    strength = jnp.array(strengths, jnp.float32)
    middle = jnp.array([1.0, 1.0, 1.0, 0.0])  # factors around 1, hue shifts around 0
    lowest = (middle - strength).at[:3].max(0)
    order_key, amount_key = jax.random.split(key)
    # A random permutation for each example: the ranks of uniform noise.
    order = jnp.argsort(jax.random.uniform(order_key, (batch, len(used))), axis=1)
    kinds = used[order]  # [B, N]
    amounts = jax.random.uniform(amount_key, (batch, 4), minval=lowest, maxval=middle + strength)
    return kinds.T, jnp.take_along_axis(amounts, kinds, axis=1).T


def grayscale(key: jax.Array, images: jax.Array, *, probability: float) -> jax.Array:
    """Converts random examples to gray, as torchvision's `RandomGrayscale`: all channels become the
    luminance 0.2989 R + 0.587 G + 0.114 B (ITU-R 601).

    Args:
        images: [B, H, W, 3].
        probability: probability that an example is changed. 0.2 in SimCLR.

    Raises:
        UserError: not float32, not three channels, or a probability outside [0, 1].
    """
    _check(images, probability=probability)
    _check_rgb(images, "grayscale")
    return _sometimes(key, probability, color.luminance(images), images)


def gaussian_blur(key: jax.Array, images: jax.Array, *, probability: float) -> jax.Array:
    """Gaussian blur of random width, with reflected borders, as torchvision's `GaussianBlur`. The
    standard deviation of an example is uniform in `SIGMA`. The kernel size is SimCLR's: a tenth of
    the shorter side, made odd (23 for 224 pixels), and at least 3.

    Args:
        images: [B, H, W, C].
        probability: probability that an example is changed. 0.5 in SimCLR.

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
    # Gaussians are separable: one matrix for the rows and one for the columns of each image.
    blurred = jnp.einsum("byv,bxu,bvuc->byxc", rows, columns, images, precision="highest")
    return jnp.clip(blurred, 0, 1)


def _blur_matrix(sigmas, side, radius):
    """[B, side, side]: entry (i, j) is the weight of pixel j in blurred pixel i.

    The blur is a matrix product because each example has its own kernel: a convolution with one
    group per example took ten times as long on CPUs.
    """
    i, j = jnp.arange(side)[:, None], jnp.arange(side)
    sigmas = sigmas[:, None, None]
    tap = lambda offset: jnp.where(
        jnp.abs(offset) <= radius, jnp.exp(-0.5 * (offset / sigmas) ** 2), 0
    )
    # Pixel j contributes directly and, unless it is the border pixel, by reflection at each border.
    weights = tap(i - j) + (j > 0) * tap(i + j) + (j < side - 1) * tap(2 * (side - 1) - i - j)
    return weights / weights.sum(axis=2, keepdims=True)


def solarize(key: jax.Array, images: jax.Array, *, probability: float) -> jax.Array:
    """Inverts values of at least `THRESHOLD`, x -> 1 - x, as torchvision's `RandomSolarize`.

    Args:
        images: [B, H, W, C].
        probability: probability that an example is changed. In BYOL 0.2 for one of the views.

    Raises:
        UserError: not float32, or a probability outside [0, 1].
    """
    _check(images, probability=probability)
    return _sometimes(key, probability, jnp.where(images >= THRESHOLD, 1 - images, images), images)


def soft_targets(labels: jax.Array, classes: int, smoothing: float) -> jax.Array:
    """Label smoothing as in timm: probability smoothing / classes for every class, plus
    1 - smoothing for the label.

    Args:
        labels: [B] int, in [0, classes).
        classes: number of classes.
        smoothing: probability mass spread over all classes, in [0, 1]. 0.1 in MAE fine-tuning.

    Returns:
        [B, classes] float32; rows sum to 1.

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
    """Mixup (arXiv 1710.09412) or CutMix (arXiv 1905.04899) of a batch with its reverse, as timm's
    `Mixup` in mode 'batch' with corrected lambda. If both are on, each has probability 1/2.

    With lam from Beta(alpha, alpha), mixup returns lam * x + (1 - lam) * x[::-1] for images and
    labels. CutMix pastes a box of x[::-1] into x. The box covers 1 - lam of the image before it is
    clipped at the borders; labels are mixed by its clipped volume.

    Args:
        images: [B, *space, C].
        labels: [B, classes] float32, soft targets.
        mixup_alpha: alpha of mixup; 0 turns it off. 0.8 in MAE fine-tuning.
        cutmix_alpha: alpha of CutMix; 0 turns it off. 1.0 in MAE fine-tuning.

    Returns:
        Mixed images and labels, of the same shapes.

    Raises:
        UserError: images that are not float32, labels of another shape, or a negative alpha.
    """
    _check(images)
    if labels.ndim != 2 or len(labels) != len(images):
        raise UserError(
            f"labels of shape {labels.shape} are not soft targets [{len(images)}, classes] for "
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
    # One draw for the whole batch, of shape [1, ..., 1] to broadcast over [B, *space].
    cut = jax.random.bernoulli(switch_key, share_cut, (1,) * (1 + len(space)))
    alpha = jnp.where(cut, float(cutmix_alpha), float(mixup_alpha))
    lam = jax.random.beta(lam_key, alpha, alpha)
    outside = ~_box(box_key, lam, space)  # [1, *space]
    weight = jnp.where(cut, outside, lam)[..., None]  # [1, *space, 1], of each pixel
    share = jnp.where(cut, outside.mean(), lam).reshape(1, 1)  # of the labels
    return (
        images * weight + images[::-1] * (1 - weight),
        labels * share + labels[::-1] * (1 - share),
    )


def _box(key, lam, space):
    """A mask [1, *space], True inside a random box with the aspect ratio of the image and about
    1 - lam of its volume, clipped at the borders: in two dimensions timm's `rand_bbox`.
    """
    mask, rank = True, len(space)
    root = jnp.sqrt(1 - lam) if rank == 2 else (1 - lam) ** (1 / rank)
    for axis, side in enumerate(space):
        # As timm, which rounds down both the side of the box and half of it.
        half = jnp.floor(jnp.floor(side * root) / 2)
        center = jax.random.randint(jax.random.split(key, rank)[axis], lam.shape, 0, side)
        at = jnp.arange(side).reshape([1, *(-1 if a == axis else 1 for a in range(rank))])
        mask &= (center - half <= at) & (at < center + half)  # broadcasts over the other axes
    return mask


def _sometimes(key, probability, changed, images):
    """Selects `changed` for each example with this probability, and `images` otherwise."""
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
