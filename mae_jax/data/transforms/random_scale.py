"""A random size of the whole image at its own aspect ratio, as in the training of segmentation."""

from mae_jax.data.fields import move
from mae_jax.data.geometry import Window
from mae_jax.data.resizing import KERNELS
from mae_jax.data.transforms import Transform, check_range, plane_of
from mae_jax.spec import check_choice
from mae_jax.types import UserError


class RandomScale(Transform):
    """Resizes an example; see `make`."""

    draws = 1

    def __init__(self, short, long, ratio, kernel):
        self.short, self.long, self.ratio, self.kernel = short, long, ratio, kernel

    def plan(self, u):
        """[B, 1]: the ratio."""
        low, high = self.ratio
        return low + u * (high - low)

    def target(self, height: int, width: int, ratio: float) -> tuple[int, int]:
        """(height, width) of the result."""
        factor = min(self.short / min(height, width), self.long / max(height, width)) * ratio
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))

    def apply(self, example, params):
        """Image of any size to that of `target`."""
        shape = plane_of(example, "random_scale")
        size = self.target(*shape, float(params[0]))
        return move(example, Window(box=(0, 0, *shape), size=size, kernel=self.kernel))


def make(
    short: int, *, long: int | None = None, ratio=(0.5, 2.0), kernel: str = "bilinear"
) -> RandomScale:
    """A random scale, e.g. 'random_scale(512, long=2048)|pad(512)|class_crop(512)|flip'.

    The factor is r min(short / shorter side, long / longer side), and r uniform in `ratio`: the
    augmentation of ADE20K in MMSegmentation, but for antialiasing where the image shrinks.

    Args:
        short: of the shorter side in pixels, where r is 1.
        long: of the longer side in pixels, at most, where r is 1; None: 4 x short.
        ratio: range of r.
        kernel: of the image, as for resize; labels take the nearest pixel.

    Raises:
        UserError: an argument outside its range.
    """
    long = 4 * short if long is None and type(short) is int else long
    for name, value in (("short", short), ("long", long)):
        if type(value) is not int or value < 1:
            raise UserError(f"random_scale: {name}={value!r} should be a positive integer")
    if long < short:
        raise UserError(f"random_scale: long={long} is less than short={short}: raise it")
    check_choice("random_scale: kernel", kernel, KERNELS)
    return RandomScale(short, long, check_range("random_scale", "ratio", ratio), kernel)
