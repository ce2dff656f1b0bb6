"""Random clips of videos [T, H, W, C]: frames at a stride that may vary, from a random one on."""

from collections.abc import Sequence

from mae_jax.data.fields import move
from mae_jax.data.geometry import Strided
from mae_jax.data.images import BadImage
from mae_jax.data.transforms import Transform, shape_of
from mae_jax.types import UserError


class RandomClip(Transform):
    """Picks frames along the first axis; see `make`."""

    draws = 2

    def __init__(self, frames, strides):
        self.frames, self.strides = frames, strides

    def apply(self, example, params):
        """[T, H, W, C] to [frames, H, W, C]."""
        low, high = self.strides
        stride = low + int(params[0] * (high - low + 1))
        margin = margin_of(example, "random_clip", self.frames, stride)
        start = int(params[1] * (margin + 1))
        return move(example, Strided(start=start, count=self.frames, stride=stride))


def margin_of(example, where: str, frames: int, stride: int) -> int:
    """Frames by which a video exceeds a clip.

    Raises:
        UserError: the images are not videos or volumes.
        BadImage: it is too short.
    """
    count, span = shape_of(example, where, 3)[0], (frames - 1) * stride + 1
    if count < span:
        raise BadImage(f"it has {count} frames, and {frames} at a stride of {stride} need {span}")
    return count - span


def check_clip(where: str, frames, strides: Sequence) -> None:
    """Raises UserError unless `frames` and the ends of `strides` are 1 or more, in order."""
    numbers = (frames, *strides)
    if not all(type(n) is int and n > 0 for n in numbers) or len(strides) != 2:
        raise UserError(
            f"{where}: frames={frames!r} and stride={strides!r} should be positive integers, "
            "stride one or (lowest, highest)"
        )
    if strides[0] > strides[1]:
        raise UserError(f"{where}: stride={strides!r} should be (lowest, highest)")


def make(frames: int, *, stride: int | Sequence[int] = 4) -> RandomClip:
    """A random clip, e.g. random_clip(16, stride=(2, 6)), from `frames(..., frames=0)`.

    Args:
        frames: number of frames of the clip.
        stride: distance of its frames; (lowest, highest): an integer drawn for each clip, uniform.

    Raises:
        UserError: an argument is invalid.
    """
    strides = (stride, stride) if isinstance(stride, int) else tuple(stride)
    check_clip("random_clip", frames, strides)
    return RandomClip(frames, strides)
