"""Clips in files: folders of frames, animated images, arrays and videos, read frame by frame."""

import importlib
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mae_jax.data import decoding
from mae_jax.data.files import read_bytes
from mae_jax.data.images import MODES, BadImage, Encoded
from mae_jax.data.lazy import Lazy
from mae_jax.data.slices import reason
from mae_jax.types import UserError

ANIMATED = (".gif", ".apng")
VIDEO = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
NPY = ".npy"
SHORT = ("refuse", "repeat")
"""What becomes of a video that is too short for a clip: it counts as damaged, or its last frame is
repeated."""

Read = Callable[[Sequence[int]], list[np.ndarray]]
"""Numbers of frames, at least one, ascending -> the frames, [H, W, C] uint8 each."""


class Clip(Lazy):
    """Frames [T, H, W, C] uint8, decoded when they are needed, each once.

    Args:
        read: reads frames of the file.
        numbers: of the frames in the clip; one may occur several times.

    Raises:
        BadImage: the first frame cannot be read.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, read: Read, numbers: Sequence[int]):
        self._read, self._numbers = read, list(numbers)
        self._frames: dict[int, np.ndarray] = {}
        first = self._numbers[0]
        self._decode([first])
        self.shape = (len(self._numbers), *self._frames[first].shape)

    def __getitem__(self, part):
        """[t, h, w, C]."""
        part = (*part, *[slice(None)] * (3 - len(part)))[:3]
        numbers = [self._numbers[i] for i in range(*part[0].indices(self.shape[0]))]
        if missing := sorted({*numbers} - self._frames.keys()):
            self._decode(missing)
        rows = [self._frames[number][part[1:]] for number in numbers]
        empty = np.empty((0, *self._frames[self._numbers[0]][part[1:]].shape), np.uint8)
        return np.stack(rows) if rows else empty

    def _decode(self, numbers: Sequence[int]) -> None:
        try:
            frames = dict(zip(numbers, self._read(numbers), strict=True))
        except BadImage:
            raise
        except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
            raise BadImage(reason(error)) from error
        self._frames |= frames
        if len(shapes := sorted({frame.shape for frame in self._frames.values()})) > 1:
            raise BadImage(f"its frames differ in size: {', '.join(map(str, shapes[:4]))}")


def natural(name: str) -> list:
    """Sorting key of a name with numbers: 'frame2' before 'frame10'."""
    return [int(text) if text.isdigit() else text for text in re.split(r"(\d+)", name)]


def read_files(paths: Sequence[Path], channels: int, numbers: Sequence[int]) -> list[np.ndarray]:
    """Frames that are image files."""
    return [Encoded(read_bytes(paths[n]), channels).pixels() for n in numbers]


def is_animated(path: Path) -> bool:
    """Whether an image file has several frames; False if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.n_frames > 1 if image.format in ("GIF", "PNG", "WEBP") else False
    except Exception:  # reading it reports the error
        return False


def count_animated(path: Path) -> int:
    """Number of frames of an animated image."""
    data = read_bytes(path)
    with decoding.opened(data) as image:
        return image.n_frames if image.format in ("GIF", "PNG", "WEBP") else 1


def read_animated(path: Path, channels: int, numbers: Sequence[int]) -> list[np.ndarray]:
    """Frames of an animated image, as shown: on the frames before them, and black behind."""
    frames = []
    with Image.open(io.BytesIO(read_bytes(path))) as image:
        for number in numbers:
            image.seek(number)
            shown = Image.new("RGBA", image.size, (0, 0, 0, 255))
            shown.alpha_composite(image.convert("RGBA"))
            frames.append(_with_channels(np.asarray(shown.convert(MODES[channels]))))
    return frames


def open_array(path: Path) -> np.ndarray:
    """A memory-mapped array [T, H, W, 1 or 3] or [T, H, W] of uint8.

    Raises:
        BadImage: it has another shape or type.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in (3, 4) or array.dtype != np.uint8 or 0 in array.shape:
        raise BadImage(
            f"it holds {array.dtype} of shape {array.shape}: a clip is uint8, [T, H, W, C]"
        )
    return array


def read_array(path: Path, channels: int, numbers: Sequence[int]) -> list[np.ndarray]:
    """Frames of an array; gray becomes RGB or the reverse, as `channels` says."""
    frames = [_with_channels(np.array(frame)) for frame in open_array(path)[list(numbers)]]
    if frames[0].shape[2] == channels:
        return frames
    return [_converted(frame, channels) for frame in frames]


def count_video(path: Path) -> int:
    """Number of frames of a video: that of its header, or else of its packets."""
    with _av().open(str(path)) as file:
        stream = _stream(file)
        return stream.frames or sum(packet.size > 0 for packet in file.demux(stream))


def read_video(path: Path, channels: int, numbers: Sequence[int]) -> list[np.ndarray]:
    """Frames of a video, decoded from its start up to the last that is needed."""
    kind, wanted, frames = {1: "gray", 3: "rgb24"}[channels], set(numbers), []
    count = 0
    with _av().open(str(path)) as file:
        for count, frame in enumerate(file.decode(_stream(file)), 1):
            if count - 1 in wanted:
                frames.append(_with_channels(frame.to_ndarray(format=kind)))
            if count > numbers[-1]:
                break
    if len(frames) < len(wanted):
        raise BadImage(f"it ends after {count} frames, before frame {numbers[-1]}")
    return frames


def require_av() -> None:
    """Raises UserError if PyAV, which decodes videos, is not installed."""
    _av()


def _av():
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise UserError(
            "frames: videos need PyAV, which is not installed: pip install av, or save their "
            "frames as images in a folder for each video"
        ) from error


def _stream(file):
    if not file.streams.video:
        raise BadImage("there is no video in it")
    return file.streams.video[0]


def _with_channels(frame: np.ndarray) -> np.ndarray:
    return frame[..., None] if frame.ndim == 2 else frame


def _converted(frame: np.ndarray, channels: int) -> np.ndarray:
    """[H, W, 1 or 3] to [H, W, channels]."""
    if frame.shape[2] not in (1, 3):
        raise BadImage(f"it has {frame.shape[2]} channels: 1 or 3 make a clip")
    image = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    return _with_channels(np.asarray(image.convert(MODES[channels])))


def clip_numbers(count: int, frames: int, stride: int, repeat: bool) -> Iterable[Sequence[int]]:
    """The frames of the clips of a video: one after another, none in two clips. A short video is
    one clip, in which its last frame is repeated.

    Args:
        count: frames of the video.
        frames: frames of a clip; 0: one clip of all.
        stride: distance of the frames of a clip.
        repeat: whether to repeat the last frame of a short video.

    Raises:
        BadImage: the video has no frame, or is too short and `repeat` is False.
    """
    if count < 1:
        raise BadImage("it has no frame, or is cut off before the first one")
    if not frames:
        return [range(count)]
    span = (frames - 1) * stride + 1
    if count >= span:
        return [range(n, n + span, stride) for n in range(0, count - span + 1, frames * stride)]
    if not repeat:
        raise BadImage(
            f"it has {count} frames, and {frames} at a stride of {stride} need {span}: lower "
            "frames or stride, or give short='repeat'"
        )
    return [[min(n * stride, count - 1) for n in range(frames)]]
