"""Resizing of the whole image, bicubic and antialiased."""

from mae_jax.data.transforms import move, shape_of, size_of


class Resize:
    """Resizes an example; see `make`."""

    draws = 0

    def __init__(self, size):
        self.size, self.pair = size, size_of(size)
        self.pixels = self.pair[0] * self.pair[1]

    def plan(self, u):
        """Nothing is random: [B, 0]."""
        return u

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the result."""
        if not isinstance(self.size, int):
            return self.pair
        shorter = min(height, width)
        return round(height * self.size / shorter), round(width * self.size / shorter)

    def apply(self, example, params):
        """Image of any size to that of `target`."""
        shape = shape_of(example)
        return move(example, (0, 0, *shape), self.target(*shape))


def make(size) -> Resize:
    """Resizing to `size` = (height, width), or, given one number, so that the shorter side has
    that length.
    """
    return Resize(size)
