"""A random spacing of volumes: each axis is scaled by a factor of its own."""

from collections.abc import Sequence

import numpy as np

from mae_jax.data.fields import move
from mae_jax.data.geometry import Rescaled
from mae_jax.data.transforms import Transform, check_range, shape_of

_AXES = 3


class SpacingJitter(Transform):
    """Scales the axes of a volume; see `make`."""

    draws = _AXES

    def __init__(self, ranges):
        self.low, self.high = np.array(ranges, np.float64).T

    def plan(self, u):
        """[B, 3]: the factors, log-uniform."""
        return self.low * (self.high / self.low) ** u

    def apply(self, example, params):
        """[D, H, W, C] to about `params` times these sides, resampled when it is cropped."""
        shape = shape_of(example, "spacing_jitter", _AXES)
        size = tuple(max(1, round(n * float(f))) for n, f in zip(shape, params, strict=True))
        return example if size == shape else move(example, Rescaled(size=size))


def make(factor: Sequence = (0.8, 1.25)) -> SpacingJitter:
    """Random scaling per axis, e.g. spacing_jitter((0.8, 1.25))|random_crop((64, 64, 64)).

    The factor of an axis is log-uniform; above 1, there are more voxels, which are closer. Images
    are interpolated linearly, with antialiasing where they shrink; labels take the nearest voxel.
    A crop after it reads and resamples its part only.

    Args:
        factor: range of the factors, or one range for each axis: ((1, 1), (0.8, 1.25), (0.8, 1.25))
            leaves depth as it is.

    Raises:
        UserError: a range is invalid.
    """
    nested = len(factor) == _AXES and all(isinstance(one, Sequence) for one in factor)
    ranges = factor if nested else (factor,) * _AXES
    return SpacingJitter([check_range("spacing_jitter", "factor", one) for one in ranges])
