"""Large-scale jitter (Ghiasi et al. 2021), the augmentation of detection and instance segmentation:
a random scale over a wide range, then a random crop, or padding where the image is smaller.
"""

from mae_jax.data.fields import move
from mae_jax.data.geometry import Padded, Window
from mae_jax.data.resizing import KERNELS
from mae_jax.data.transforms import Transform, check_range, plane_of, size_of
from mae_jax.data.transforms.pad import FILL
from mae_jax.spec import check_choice


class LargeScaleJitter(Transform):
    """Scales and crops an example; see `make`."""

    draws = 3

    def __init__(self, size, scale, kernel):
        self.size, self.scale, self.kernel = size, scale, kernel
        self.pixels = size[0] * size[1]

    def plan(self, u):
        """[B, 3]: the scale, and the place of the crop in y and in x as shares of the margins."""
        low, high = self.scale
        u = u.copy()
        u[:, 0] = low + u[:, 0] * (high - low)
        return u

    def apply(self, example, params):
        """Image of any size to [*size, C]."""
        shape = plane_of(example, "large_scale_jitter")
        scale, *shares = params.tolist()
        factor = scale * min(side / own for side, own in zip(self.size, shape))
        scaled = [max(1, int(own * factor + 0.5)) for own in shape]
        inner = tuple(min(side, new) for side, new in zip(self.size, scaled))
        starts = [int((new - n) * u + 0.5) for new, n, u in zip(scaled, inner, shares)]
        # The same window in the pixels of the image, which is decoded no larger than needed.
        ratios = [own / new for own, new in zip(shape, scaled)]
        low = [start * ratio for start, ratio in zip(starts, ratios)]
        extent = [min(n * r, own - x) for n, r, own, x in zip(inner, ratios, shape, low)]
        example = move(example, Window(box=(*low, *extent), size=inner, kernel=self.kernel))
        return example if inner == self.size else move(example, Padded(size=self.size, fill=FILL))


def make(size, *, scale=(0.1, 2.0), kernel: str = "bilinear") -> LargeScaleJitter:
    """Large-scale jitter, e.g. 'flip|large_scale_jitter(1024)' as in the training of ViTDet.

    The image is resized, at its aspect ratio, so that it fits into s x `size`, with s uniform in
    `scale`. Of an axis that is longer than `size` then, a part at a random place is cut out; one
    that is shorter is padded at the bottom or on the right with the mean color of ImageNet. Boxes
    become the extents of what is left of their masks, if batches hold 'box_mask'.

    Args:
        size: of the result in pixels, one number or (height, width).
        scale: range of s.
        kernel: of the image, as for resize.

    Raises:
        UserError: an argument outside its range.
    """
    check_choice("large_scale_jitter: kernel", kernel, KERNELS)
    scale = check_range("large_scale_jitter", "scale", scale)
    return LargeScaleJitter(size_of(size), scale, kernel)
