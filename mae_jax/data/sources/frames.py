"""A folder of clips: folders of frames, animated images, .npy and videos (PyAV)."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mae_jax.data import clips
from mae_jax.data.clips import Clip
from mae_jax.data.decoding import extensions
from mae_jax.data.files import Files, check_regular, class_labels, class_of, find
from mae_jax.data.images import BadImage
from mae_jax.data.names import printable
from mae_jax.data.slices import reason
from mae_jax.data.sources import Source
from mae_jax.spec import check_choice
from mae_jax.types import UserError

STRIDE = 4
"""Distance of the frames of a clip, by default."""


class Video(NamedTuple):
    """A video: a file, or the image files of a folder."""

    name: str
    files: range
    """Numbers of its files, those of one folder as they are listed."""
    kind: str
    """'files', 'animated', 'array' or 'video'."""


class Entry(NamedTuple):
    """One example: a clip of a video."""

    video: Video
    numbers: Sequence[int] = ()
    """Of its frames."""
    damage: str = ""
    """Why it cannot be read."""
    clip: int = -1
    """Its number in the video; -1: the only one."""


class Frames(Source):
    """Clips of videos, see `make`. Memory holds an entry for each clip.

    Args:
        files: the files of the folder.
        entries: the clips.
        channels: 3 or 1.
    """

    def __init__(self, files: Files, entries: Sequence[Entry], *, channels: int):
        self.files, self.entries, self.channels = files, entries, channels
        self.num_examples = len(entries)
        self._labels = class_labels(entry.video.name for entry in entries if not entry.damage)
        self.names = {"label": tuple(self._labels)} if self._labels else {}
        listing = "\n".join([files.digest, *(self.name(i) for i in range(len(entries)))])
        self.digest = hashlib.sha256(listing.encode()).hexdigest()[:16]
        damaged = ((self.name(n), e.damage) for n, e in enumerate(entries) if e.damage)
        self.damaged = [f"{printable(name)}: {why}" for name, why in damaged]
        report = f"cannot read {len(self.damaged)}, e.g. {self.damaged[0]}" if self.damaged else ""
        self.notes = (
            *(n for n in files.notes if not (self._labels and n in files.no_classes)),
            *filter(None, [report]),
        )

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' [T, H, W, C] uint8, decoded when it is cropped; 'label' if there are classes.

        Raises:
            BadImage: a clip cannot be read.
        """
        entries = [self.entries[index] for index in indices]
        fields = {"image": [self._clip(entry) for entry in entries]}
        if self.class_names:
            fields["label"] = [self._labels[class_of(entry.video.name)] for entry in entries]
        return fields

    def labels(self) -> np.ndarray | None:
        """[N] int32, from the names of the videos, -1 for damaged ones; None without classes."""
        if not self.class_names:
            return None
        label_of = lambda entry: -1 if entry.damage else self._labels[class_of(entry.video.name)]
        return np.fromiter(map(label_of, self.entries), np.int32, len(self.entries))

    def name(self, index: int) -> str:
        """'walk/0001.gif', or 'walk/0001.gif[2]' for the third of several clips."""
        entry = self.entries[index]
        return entry.video.name + (f"[{entry.clip}]" if entry.clip >= 0 else "")

    def group(self, index: int) -> str:
        """The video."""
        return self.entries[index].video.name

    def groups(self) -> np.ndarray | None:
        """[N] int32, the video of each clip; None if all have one clip."""
        first = {entry.video.name: n for n, entry in enumerate(self.entries)}
        if len(first) == len(self.entries):
            return None
        numbers = {name: n for n, name in enumerate(first)}
        return np.array([numbers[entry.video.name] for entry in self.entries], np.int32)

    def _clip(self, entry: Entry) -> Clip:
        if entry.damage:
            raise BadImage(entry.damage)
        return Clip(partial(reader(self.files, entry.video), self.channels), entry.numbers)


def reader(files: Files, video: Video) -> Callable[[int, Sequence[int]], list[np.ndarray]]:
    """(channels, numbers) -> frames of a video."""
    if video.kind == "files":
        paths = sorted(map(files.path, video.files), key=lambda path: clips.natural(path.name))
        return partial(clips.read_files, paths)
    read = {"animated": clips.read_animated, "array": clips.read_array, "video": clips.read_video}
    return partial(read[video.kind], files.path(video.files[0]))


def count(files: Files, video: Video) -> int:
    """Number of frames of a video, from headers."""
    if video.kind == "files":
        return len(video.files)
    path = files.path(video.files[0])
    check_regular(path)
    if video.kind == "array":
        return len(clips.open_array(path))
    return (clips.count_video if video.kind == "video" else clips.count_animated)(path)


def videos(files: Files) -> list[Video]:
    """The videos of a folder, in the order of its files. The image files of one folder are the
    frames of one video, unless the first of them is animated.
    """
    found: list[Video] = []
    for number in range(len(files)):
        name = files[number]
        kind, folder = _kind(name), name.rpartition("/")[0]
        last = found[-1] if found else None
        if kind == "files" and last and last.kind == "files" and last.name == folder:
            found[-1] = last._replace(files=range(last.files[0], number + 1))
            continue
        mixed = name.lower().endswith((".webp", ".png"))
        if kind == "files" and mixed and clips.is_animated(files.path(number)):
            kind = "animated"
        one = range(number, number + 1)
        found.append(Video(folder if kind == "files" else name, one, kind))
    return found


def _kind(name: str) -> str:
    lower = name.lower()
    kinds = {clips.ANIMATED: "animated", (clips.NPY,): "array", clips.VIDEO: "video"}
    return next((kind for ends, kind in kinds.items() if lower.endswith(ends)), "files")


def _check_whole(**options) -> None:
    """Raises UserError if an option is set that whole videos do not read."""
    for name, value in options.items():
        if value is not None:
            raise UserError(
                f"frames: {name}={value!r} has no effect with frames=0, which reads whole videos: "
                "give it to random_clip and center_clip"
            )


def make(
    path: str,
    *,
    frames: int = 16,
    stride: int | None = None,
    short: str | None = None,
    channels: int = 3,
) -> Frames:
    """The clips below a folder, folder by folder, sorted by name: images [T, H, W, C] uint8.

    A video is a folder of image files (its frames, sorted by the numbers in their names), an
    animated GIF, PNG or WebP, an .npy [T, H, W, C] of uint8, or a video file (PyAV). It is cut into
    clips that follow one another; a video that is too short counts as damaged. If all videos are in
    sub-folders, the direct sub-folders are the classes. Frames are decoded when they are needed.

    Args:
        path: the folder.
        frames: frames of a clip; 0: a video is one example, for `random_clip` and `center_clip`,
            which have a stride of their own, and see whether a video is too short.
        stride: distance of the frames of a clip; None: 4.
        short: 'refuse', or 'repeat' the last frame of videos that are too short; None: 'refuse'.
        channels: 3 (color) or 1 (gray).

    Raises:
        UserError: the folder or PyAV is missing, no clip can be read, or an option is invalid.
    """
    if frames == 0:
        _check_whole(stride=stride, short=short)
    stride, short = (STRIDE if stride is None else stride), ("refuse" if short is None else short)
    for name, value, least in (("frames", frames, 0), ("stride", stride, 1)):
        if type(value) is not int or value < least:
            raise UserError(f"frames: {name}={value!r} should be an integer of {least} or more")
    check_choice("frames: short", short, clips.SHORT)
    if channels not in (1, 3):
        raise UserError(f"frames: channels {channels!r} is not supported: choose 1, 3")
    endings = (*extensions(), *clips.ANIMATED, clips.NPY, *clips.VIDEO)
    wanted = lambda file: file.name.lower().endswith(endings)
    looked_for = f"images, {', '.join((*clips.ANIMATED, clips.NPY, *clips.VIDEO))}"
    files = find("frames", path, wanted, looked_for)
    found = videos(files)
    if any(video.kind == "video" for video in found):
        clips.require_av()

    def entries_of(video: Video) -> list[Entry]:
        try:
            cut = clips.clip_numbers(count(files, video), frames, stride, short == "repeat")
        except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
            return [Entry(video, damage=reason(error))]
        parts = list(enumerate(cut))
        return [Entry(video, part, clip=n if len(parts) > 1 else -1) for n, part in parts]

    with ThreadPoolExecutor(16) as pool:  # mostly waits for the disk
        entries = [entry for some in pool.map(entries_of, found) for entry in some]
    if all(entry.damage for entry in entries):
        several = f" (nor can any of {len(entries)} videos)" * (len(entries) > 1)
        raise UserError(
            f"cannot read {Path(path) / entries[0].video.name}{several}: {entries[0].damage}"
        )
    return Frames(files, entries, channels=channels)
