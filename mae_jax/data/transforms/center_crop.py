"""The middle of the image."""

from mae_jax.data.transforms import move, shape_of, size_of
from mae_jax.types import UserError


class CenterCrop:
    """Cuts out the middle; see `make`."""

    draws = 0

    def __init__(self, size):
        self.size, self.pixels = size, size[0] * size[1]

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
        return move(example, ((height - rows) // 2, (width - columns) // 2, *self.size), self.size)


def make(size) -> CenterCrop:
    """A crop of `size` pixels, one number or (height, width), at most that of the image."""
    return CenterCrop(size_of(size))
