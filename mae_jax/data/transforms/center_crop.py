"""The middle of the image."""

from mae_jax.data.transforms import move, shape_of, size_of
from mae_jax.spec import check_choice
from mae_jax.types import UserError

HALF = {"down": lambda margin: margin // 2, "even": lambda margin: round(margin / 2)}


class CenterCrop:
    """Cuts out the middle; see `make`."""

    draws = 0

    def __init__(self, size, rounding):
        self.size, self.half, self.pixels = size, HALF[rounding], size[0] * size[1]

    def plan(self, u):
        """Nothing is random: [B, 0]."""
        return u

    def apply(self, example, params):
        """Image of at least `size` to [*size, C]."""
        (height, width), (rows, columns) = shape_of(example), self.size
        if height < rows or width < columns:
            raise UserError(
                f"center_crop({rows}, {columns}) of an image of {height} x {width}: "
                "put resize(...) before it"
            )
        top, left = self.half(height - rows), self.half(width - columns)
        return move(example, (top, left, *self.size), self.size)


def make(size, *, rounding: str = "down") -> CenterCrop:
    """A crop from the middle.

    Args:
        size: in pixels, one number or (height, width), at most that of the image.
        rounding: where the margin is an odd number of pixels, of its half: 'down' as in
            transformers, or to the 'even' number as in torchvision, and so timm.

    Raises:
        UserError: another rounding.
    """
    check_choice("center_crop: rounding", rounding, HALF)
    return CenterCrop(size_of(size), rounding)
