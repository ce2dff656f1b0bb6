"""The clip in the middle of a video [T, H, W, C], for evaluation."""

from mae_jax.data.fields import move
from mae_jax.data.geometry import Strided
from mae_jax.data.transforms import Transform
from mae_jax.data.transforms.random_clip import check_clip, margin_of


class CenterClip(Transform):
    """Picks frames along the first axis; see `make`."""

    def __init__(self, frames, stride, short):
        self.frames, self.stride, self.short = frames, stride, short

    def apply(self, example, params):
        """[T, H, W, C] to [frames, H, W, C]."""
        start = margin_of(example, "center_clip", self.frames, self.stride, self.short) // 2
        return move(example, Strided(start=start, count=self.frames, stride=self.stride))


def make(frames: int, *, stride: int = 4, short: str = "refuse") -> CenterClip:
    """The clip in the middle.

    Args:
        frames: number of frames of the clip.
        stride: distance of its frames.
        short: of videos that are too short, 'refuse', as damaged ones, or 'repeat' the last frame.

    Raises:
        UserError: an argument is invalid.
    """
    check_clip("center_clip", frames, (stride, stride), short)
    return CenterClip(frames, stride, short)
