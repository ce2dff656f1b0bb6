"""Images to sequences of patches and back, in the order of the MAE paper (arXiv 2111.06377).

Tokens run row-major over the image; inside a token the values run (row, column, channel).
"""

import jax

from mae_jax.types import UserError


def grid_of(image_size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Rows and columns of patches in an image.

    Args:
        image_size: (height, width) in pixels.
        patch: side of the square patches in pixels.

    Raises:
        UserError: a side is not a multiple of the patch.
    """
    for name, side in zip(("height", "width"), image_size, strict=True):
        if patch < 1 or side < patch or side % patch:
            raise UserError(
                f"image {name} {side} is not a multiple of the patch size {patch}: choose a patch "
                f"that divides {image_size[0]} x {image_size[1]}, or resize the images"
            )
    return image_size[0] // patch, image_size[1] // patch


def patchify(images: jax.Array, patch: int) -> jax.Array:
    """[B, H, W, C] images to [B, L, patch * patch * C] tokens."""
    batch, height, width, channels = images.shape
    rows, columns = grid_of((height, width), patch)
    x = images.reshape(batch, rows, patch, columns, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, patch * patch * channels)


def unpatchify(tokens: jax.Array, patch: int, grid: tuple[int, int]) -> jax.Array:
    """[B, L, patch * patch * C] tokens back to [B, H, W, C] images."""
    batch, _, values = tokens.shape
    rows, columns = grid
    channels = values // (patch * patch)
    x = tokens.reshape(batch, rows, columns, patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * patch, columns * patch, channels)
