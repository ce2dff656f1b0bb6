"""Random clips of videos [T, H, W, C]: frames at a stride that may vary, from a random one on."""

from collections.abc import Sequence

from mae_jax.data.clips import SHORT
from mae_jax.data.fields import move
from mae_jax.data.geometry import Strided
from mae_jax.data.images import BadImage
from mae_jax.data.transforms import Transform, shape_of
from mae_jax.spec import check_choice
from mae_jax.types import UserError


class RandomClip(Transform):
    """Picks frames along the first axis; see `make`."""

    draws = 2

    def __init__(self, frames, strides, short):
        self.frames, self.strides, self.short = frames, strides, short

    def apply(self, example, params):
        """[T, H, W, C] to [frames, H, W, C]."""
        low, high = self.strides
        stride = low + int(params[0] * (high - low + 1))
        margin = margin_of(example, "random_clip", self.frames, stride, self.short)
        start = int(params[1] * (margin + 1))
        return move(example, Strided(start=start, count=self.frames, stride=stride))


def margin_of(example, where: str, frames: int, stride: int, short: str) -> int:
    """Frames by which a video exceeds a clip; 0 if it is too short, and its last one is repeated.

    Raises:
        UserError: the images are not videos or volumes.
        BadImage: it is too short.
    """
    count, span = shape_of(example, where, 3)[0], (frames - 1) * stride + 1
    if count < span and short != "repeat":
        raise BadImage(
            f"it has {count} frames, and {frames} at a stride of {stride} need {span}: lower one "
            f"of them, or give {where} short='repeat'"
        )
    return max(0, count - span)


def check_clip(where: str, frames, strides: Sequence, short: str) -> None:
    """Raises UserError unless `frames` and the ends of `strides` are 1 or more, in order, and
    `short` is known.
    """
    check_choice(f"{where}: short", short, SHORT)
    numbers = (frames, *strides)
    if not all(type(n) is int and n > 0 for n in numbers) or len(strides) != 2:
        raise UserError(
            f"{where}: frames={frames!r} and stride={strides!r} should be positive integers, "
            "stride one or (lowest, highest)"
        )
    if strides[0] > strides[1]:
        raise UserError(f"{where}: stride={strides!r} should be (lowest, highest)")


def make(frames: int, *, stride: int | Sequence[int] = 4, short: str = "refuse") -> RandomClip:
    """A random clip, e.g. random_clip(16, stride=(2, 6)), from `frames(..., frames=0)`.

    Args:
        frames: number of frames of the clip.
        stride: distance of its frames; (lowest, highest): an integer drawn for each clip, uniform.
        short: of videos that are too short at their stride, 'refuse', as damaged ones, or 'repeat'
            the last frame.

    Raises:
        UserError: an argument is invalid.
    """
    strides = (stride, stride) if isinstance(stride, int) else tuple(stride)
    check_clip("random_clip", frames, strides, short)
    return RandomClip(frames, strides, short)
