"""Images to patches and back: the order of tokens and of the values inside them."""

import jax.numpy as jnp
import numpy as np
import pytest

from mae_jax.ops import patches
from mae_jax.types import UserError

SHAPES = [(2, 8, 8, 3, 4), (1, 6, 10, 1, 2), (2, 9, 3, 5, 3), (1, 4, 8, 4, 4), (1, 2, 3, 2, 1)]


def patchify_by_loops(images, patch):
    """Tokens row-major over the image; values in the order (row, column, channel)."""
    batch, height, width, _ = images.shape
    examples = []
    for b in range(batch):
        tokens = []
        for top in range(0, height, patch):
            for left in range(0, width, patch):
                token = []
                for py in range(patch):
                    for px in range(patch):
                        token.extend(images[b, top + py, left + px])
                tokens.append(token)
        examples.append(tokens)
    return np.array(examples)


@pytest.mark.parametrize(("batch", "height", "width", "channels", "patch"), SHAPES)
def test_order_and_round_trip(batch, height, width, channels, patch):
    shape = (batch, height, width, channels)
    images = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    tokens = patches.patchify(jnp.asarray(images), patch)
    np.testing.assert_array_equal(tokens, patchify_by_loops(images, patch))
    grid = patches.grid_of((height, width), patch)
    assert grid == (height // patch, width // patch)
    back = patches.unpatchify(tokens, patch, grid)
    assert back.dtype == images.dtype
    np.testing.assert_array_equal(back, images)


@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((2, 12, 3), 4),
        ((1, 6, 4, 2), (3, 2)),
        ((2, 4, 6, 8, 3), 2),
        ((1, 4, 6, 8, 2), (1, 3, 4)),
        ((1, 2, 2, 4, 2, 1), 2),
    ],
)
def test_any_number_of_dimensions(shape, patch):
    """Each token is the box of the image at its place, flattened."""
    images = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    tokens = np.asarray(patches.patchify(jnp.asarray(images), patch))
    space = shape[1:-1]
    sides = patches.patch_sides(patch, len(space))
    grid = patches.grid_of(space, patch)
    for place, token in zip(np.ndindex(*grid), tokens.swapaxes(0, 1), strict=True):
        box = tuple(slice(i * side, i * side + side) for i, side in zip(place, sides))
        np.testing.assert_array_equal(token, images[(slice(None), *box)].reshape(shape[0], -1))
    np.testing.assert_array_equal(patches.unpatchify(jnp.asarray(tokens), patch, grid), images)


@pytest.mark.parametrize(
    ("size", "patch", "message"),
    [
        ((30, 32), 16, "image height 30 is not a multiple of the patch size 16"),
        ((32, 30), 16, "image width 30 is not a multiple of the patch size 16"),
        ((8, 8), 16, "height 8"),
        ((0, 8), 4, "height 0"),
        ((8, 8), 0, "patch size 0"),
        ((8, 8), -4, "patch size -4"),
        ((10,), 4, "image length 10 is not a multiple of the patch size 4"),
        ((5, 8, 8), 2, "image depth 5 .* divides 5 x 8 x 8"),
        ((4, 8, 9), (2, 4, 4), "image width 9 is not a multiple of the patch size 4"),
        ((4, 8, 8), (4, 4), r"patch=\(4, 4\) has 2 sides for images of 3 dimensions"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(size, patch, message):
    with pytest.raises(UserError, match=message):
        patches.grid_of(size, patch)


def test_patchify_refuses_images_that_do_not_divide():
    with pytest.raises(UserError, match="width 10 is not a multiple of the patch size 4"):
        patches.patchify(jnp.zeros((1, 8, 10, 3)), 4)
