"""Colour as torchvision defines it: luminance, and the four adjustments of its `ColorJitter`, here
with an amount, and even a kind of adjustment, for every example of the batch.

Images are float32 [B, H, W, C] in [0, 1].
"""

import jax
import jax.numpy as jnp

# ITU-R 601; torchvision's digits, which sum to 0.9999.
LUMA = (0.2989, 0.587, 0.114)

ADJUSTMENTS = ("brightness", "contrast", "saturation", "hue")


def luminance(images: jax.Array) -> jax.Array:
    """Grey values [B, H, W, 1]: 0.2989 R + 0.587 G + 0.114 B, or the mean over the channels of
    images that have not three of them (so a grey image's is itself).
    """
    if images.shape[-1] != 3:
        return images.mean(axis=-1, keepdims=True)
    # Not a matrix product: accelerators would round its factors to bfloat16 or tf32.
    return sum(weight * images[..., i : i + 1] for i, weight in enumerate(LUMA))


def shift_hue(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Turns every colour around the grey axis of HSV space; value and saturation stay.

    With M and m the largest and the smallest of a pixel's channels and h its hue in sixths of a
    turn, channel n of the new colour is M - (M - m) clip(min(k, 4 - k), 0, 1) for
    k = h + 6 shift + (5, 3, 1)[n] mod 6: torchvision's `adjust_hue` in closed form.

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
    # Not `largest == red`: a fused kernel may compute the images twice, and round differently.
    hue = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / divisor,
        jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    k = hue + 6 * shift + jnp.array([5.0, 3.0, 1.0])
    k -= 6 * jnp.floor(k / 6)  # Not k % 6: XLA's remainder is many times slower.
    return largest - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def adjust(images: jax.Array, kind: jax.Array, amount: jax.Array, *, hue: bool) -> jax.Array:
    """One adjustment of every example: torchvision's adjust_brightness, _contrast, _saturation
    and _hue.

    The first three blend the image with something, clip(a x + (1 - a) y, 0, 1): y is black for
    brightness, the mean luminance for contrast, every pixel's own luminance for saturation.

    Args:
        images: [B, H, W, C].
        kind: [B] int, which of `ADJUSTMENTS`.
        amount: [B], the factor a >= 0 of a blend, or the shift of the hue in turns.
        hue: whether any kind is hue, which takes most of the time and three channels.

    Returns:
        [B, H, W, C] in [0, 1].
    """
    kind, amount = (x[:, None, None, None] for x in (kind, amount))
    grey = luminance(images)
    other = jnp.where(kind == 1, grey.mean(axis=(1, 2, 3), keepdims=True), grey)
    other = jnp.where(kind == 0, 0, other)
    blended = jnp.clip(amount * images + (1 - amount) * other, 0, 1)
    return jnp.where(kind == 3, shift_hue(images, amount), blended) if hue else blended
