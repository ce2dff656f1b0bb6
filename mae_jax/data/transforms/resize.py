"""Antialiased resizing of the whole image, with a choice of kernels."""

from mae_jax.data.fields import move
from mae_jax.data.geometry import Window
from mae_jax.data.resizing import KERNELS
from mae_jax.data.transforms import Transform, plane_of, size_of
from mae_jax.spec import check_choice

ROUND = {"nearest": round, "down": int}


class Resize(Transform):
    """Resizes an example; see `make`."""

    def __init__(self, size, kernel, rounding):
        self.size, self.pair = size, size_of(size)
        self.kernel, self.round = kernel, ROUND[rounding]
        self.pixels = self.pair[0] * self.pair[1]

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the result."""
        if not isinstance(self.size, int):
            return self.pair
        shorter = min(height, width)
        return self.round(height * self.size / shorter), self.round(width * self.size / shorter)

    def apply(self, example, params):
        """Resizes an image of any size to its `target`."""
        shape = plane_of(example, "resize")
        window = Window(box=(0, 0, *shape), size=self.target(*shape), kernel=self.kernel)
        return move(example, window)


def make(size, *, kernel: str = "bicubic", rounding: str = "nearest") -> Resize:
    """Resizing to a fixed size, or to a fixed length of the shorter side.

    Args:
        size: (height, width) in pixels, or one number for the shorter side.
        kernel: 'bicubic', 'bilinear', 'lanczos' or 'nearest', as in Pillow.
        rounding: rounding of the longer side: to the 'nearest' pixel, or 'down' as in torchvision
            and transformers.

    Raises:
        UserError: the size, the kernel or the rounding is invalid.
    """
    check_choice("resize: kernel", kernel, KERNELS)
    check_choice("resize: rounding", rounding, ROUND)
    return Resize(size, kernel, rounding)
