"""A random crop that one class does not fill, for the training of segmentation."""

import math

import numpy as np

from mae_jax.data.fields import IGNORE, move
from mae_jax.data.geometry import Window
from mae_jax.data.transforms import Transform, margins_of, size_of
from mae_jax.types import UserError


class ClassCrop(Transform):
    """Cuts out a part of several classes; see `make`."""

    def __init__(self, size, share, tries):
        self.size, self.share, self.pixels = size, share, math.prod(size)
        self.draws = 2 * (tries + 1)

    def plan(self, u):
        """[B, tries + 1, 2]: place in y and in x of each window, as shares of the margins."""
        return u.reshape(len(u), -1, 2)

    def varied(self, segmentation: np.ndarray) -> bool:
        """Whether there are several classes [h, w], none of which fills it."""
        counts = np.bincount(segmentation[segmentation != IGNORE].astype(np.intp))
        return (counts > 0).sum() > 1 and counts.max() < self.share * counts.sum()

    def apply(self, example, params):
        """Image of at least `size` to [*size, C]; without a segmentation, a random crop."""
        margins = margins_of(example, "class_crop", self.size)
        starts = (params * (np.array(margins) + 1)).astype(int)  # [tries + 1, 2]
        for start in starts[:-1]:
            part = tuple(slice(first, first + n) for first, n in zip(start, self.size))
            if "segmentation" not in example or self.varied(example["segmentation"][part]):
                break
        else:
            start = starts[-1]
        return move(example, Window(box=(*start.tolist(), *self.size), size=self.size))


def make(size, *, share: float = 0.75, tries: int = 10) -> ClassCrop:
    """A random crop with several classes: the first of `tries` windows that has at least two, each
    on less than `share` of the pixels that have a class; otherwise one more window, whatever is in
    it. As in the training of ADE20K in MMSegmentation.

    Args:
        size: in pixels, one number or (height, width), at most that of the image: put pad(size)
            before it.
        share: of the most frequent class, in (0, 1].
        tries: how many windows are tested.

    Raises:
        UserError: an argument outside its range.
    """
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise UserError(f"class_crop: share={share!r} is not in (0, 1]")
    if type(tries) is not int or not 0 <= tries <= 1000:
        raise UserError(f"class_crop: tries={tries!r} should be an integer from 0 to 1000")
    return ClassCrop(size_of(size), share, tries)
