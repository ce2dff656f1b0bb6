"""Color operations as torchvision defines them: luminance, and the adjustments of `ColorJitter`.
The kind and the amount of an adjustment may differ between the examples of a batch.

Images are float32 [B, H, W, C] in [0, 1].
"""

import jax
import jax.numpy as jnp

# ITU-R 601; torchvision's digits, which sum to 0.9999.
LUMA = (0.2989, 0.587, 0.114)

ADJUSTMENTS = ("brightness", "contrast", "saturation", "hue")


def luminance(images: jax.Array) -> jax.Array:
    """Luminance [B, H, W, 1]: 0.2989 R + 0.587 G + 0.114 B for three channels, else the mean over
    the channels.
    """
    if images.shape[-1] != 3:
        return images.mean(axis=-1, keepdims=True)
    # Not a matrix product: accelerators would round its factors to bfloat16 or TF32.
    return sum(weight * images[..., i : i + 1] for i, weight in enumerate(LUMA))


def shift_hue(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Shifts the hue in HSV space, at constant value and saturation: torchvision's `adjust_hue` in
    closed form.

    With M and m the largest and the smallest of a pixel's channels and h its hue in sixths of a
    turn, channel n of the new color is M - (M - m) clip(min(k, 4 - k), 0, 1) for
    k = h + 6 shift + (5, 3, 1)[n] mod 6.

    Args:
        images: [B, H, W, 3] RGB.
        shift: turns, any real number; broadcasts against [B, H, W, 1].

    Returns:
        [B, H, W, 3] in [0, 1].
    """
    red, green, blue = (images[..., i : i + 1] for i in range(3))
    largest = images.max(axis=-1, keepdims=True)
    chroma = largest - images.min(axis=-1, keepdims=True)
    divisor = jnp.where(chroma == 0, 1, chroma)
    # Not `largest == red`: a fused kernel may compute `images` twice and round it differently.
    hue = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / divisor,
        jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    k = hue + 6 * shift + jnp.array([5.0, 3.0, 1.0])
    k -= 6 * jnp.floor(k / 6)  # Not k % 6: XLA's remainder is many times slower.
    return largest - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def adjust(images: jax.Array, kind: jax.Array, amount: jax.Array, *, hue: bool) -> jax.Array:
    """Applies one adjustment to each example: torchvision's adjust_brightness, adjust_contrast,
    adjust_saturation or adjust_hue.

    The first three blend the image x with y by clip(a x + (1 - a) y, 0, 1), where y is black for
    brightness, the mean luminance for contrast, and each pixel's luminance for saturation.

    Args:
        images: [B, H, W, C].
        kind: [B] int, index into `ADJUSTMENTS`.
        amount: [B], the factor a >= 0 of a blend, or the shift of the hue in turns.
        hue: whether `kind` may be hue, which needs three channels and most of the time.

    Returns:
        [B, H, W, C] in [0, 1].
    """
    kind, amount = (x[:, None, None, None] for x in (kind, amount))  # [B, 1, 1, 1]
    gray = luminance(images)  # [B, H, W, 1]
    other = jnp.where(kind == 1, gray.mean(axis=(1, 2, 3), keepdims=True), gray)
    other = jnp.where(kind == 0, 0, other)
    blended = jnp.clip(amount * images + (1 - amount) * other, 0, 1)
    return jnp.where(kind == 3, shift_hue(images, amount), blended) if hue else blended
