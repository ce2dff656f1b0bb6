"""Images in one NumPy file: an .npy, mapped into memory and read when asked for, or an .npz."""

import hashlib
from pathlib import Path

import numpy as np

from mae_jax.data.files import expanded
from mae_jax.data.images import MODES, Window, check_window
from mae_jax.data.slices import no_window, reason, to_bytes
from mae_jax.data.sources import Source, count_labels
from mae_jax.types import UserError

MAX_CLASSES = 1_000_000

_MIB = 2**20
_SAMPLE = 100  # images looked at, to tell which values there are


class ArrayFile(Source):
    """Images of an array, and their labels; see `make`.

    Args:
        path: of the file.
        images: [N, H, W] or [N, H, W, C], in memory or mapped into it.
        labels: [N] int32, or None.
        window: maps values to bytes; None for uint8.
    """

    def __init__(
        self, path: Path, images: np.ndarray, labels: np.ndarray | None, window: Window | None
    ):
        self._file, self._images, self._labels, self._window = path.name, images, labels, window
        self.num_examples = len(images)
        self.class_names = () if labels is None else tuple(map(str, range(labels.max() + 1)))
        self.digest = _digest(path, images, labels)
        if images.ndim == 4 and images.shape[1] in MODES and images.shape[3] not in MODES:
            height, width, channels = images.shape[1:]
            self.notes = (
                f"{path.name} is read as images of {height} x {width} pixels and {channels} "
                "channels: if its axes are [N, C, H, W], save numpy.moveaxis(images, 1, -1)",
            )

    def class_counts(self) -> np.ndarray | None:
        """[classes] int, without reading an image."""
        return count_labels(self._labels, self.class_names)

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' [H, W, C] uint8 of each index, and 'label' if there are labels."""
        images = [to_bytes(np.array(self._images[i]), self._window) for i in indices]
        fields = {"image": [image.reshape(*image.shape[:2], -1) for image in images]}
        if self._labels is not None:
            fields["label"] = [int(self._labels[i]) for i in indices]
        return fields

    def name(self, index: int) -> str:
        """What an example is called, e.g. 'images.npy[3]'."""
        return f"{self._file}[{index}]"


def make(
    path: str,
    *,
    labels: str | None = None,
    image: str | None = None,
    label: str | None = None,
    window: Window | None = None,
) -> ArrayFile:
    """The images of an .npy file, with labels in another, or those of an .npz, with labels in it:
    array_file('images.npy', labels='labels.npy'), array_file('set.npz', image='x', label='y').

    An .npy is mapped into memory: only the images that are asked for are read. An .npz is read
    into memory as a whole, so large sets belong into an .npy.

    Args:
        path: a file of numpy.save, or of numpy.savez. Images are [N, H, W, C], or [N, H, W] with
            one channel.
        labels: for an .npy: the file with its labels, [N] integers from 0.
        image, label: for an .npz: the names of its arrays of images and of labels.
        window: (low, high), the values that become 0 and 255. Needed for anything but uint8, which
            stays as it is without.

    Raises:
        UserError: a file or an array in it is missing, cannot be read, or is not as above.
    """
    check_window("array_file", window)
    file = expanded(path)
    found = _open(file)
    if isinstance(found, np.ndarray):
        for name, value in (("image", image), ("label", label)):
            if value is not None:
                raise UserError(
                    f"array_file: {name}={value!r} names an array of an .npz, and {file} is an "
                    ".npy: leave it out (labels='labels.npy' names a file of labels)"
                )
        images, numbers = found, None if labels is None else _open_labels(labels)
    else:
        with found:
            if labels is not None:
                raise UserError(
                    f"array_file: labels={labels!r} goes with an .npy, and {file} is an .npz: name "
                    "the array in it that holds the labels with label=..."
                )
            images = _member(file, found, "image", image)
            numbers = None if label is None else _member(file, found, "label", label)
    _check_images(file, images, window)
    return ArrayFile(file, images, _as_labels(numbers, file, len(images)), window)


def _open(file: Path) -> "np.ndarray | np.lib.npyio.NpzFile":
    """An array mapped into memory, or an archive of arrays."""
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy and zipfile raise errors of many kinds on damaged files
        raise UserError(
            f"array_file: cannot read {str(file)!r}: {reason(error)}; give a file that numpy.save "
            "or numpy.savez wrote, without Python objects"
        ) from error


def _open_labels(labels: str) -> np.ndarray:
    found = _open(expanded(labels))
    if not isinstance(found, np.ndarray):
        found.close()
        raise UserError(f"array_file: labels={labels!r} is an .npz: give an .npy with one array")
    return found


def _member(file: Path, archive, option: str, name: str | None) -> np.ndarray:
    """One array of an .npz, in memory."""
    if name not in archive.files:
        asked = f"has no array {name!r}" if name else f"is an .npz: say {option}=..."
        raise UserError(f"array_file: {file} {asked}; it holds {', '.join(archive.files)}")
    try:
        return np.asarray(archive[name])
    except Exception as error:
        raise UserError(
            f"array_file: cannot read {name!r} of {file}: {reason(error)}; write the file again"
        ) from error


def _check_images(file: Path, images: np.ndarray, window: Window | None) -> None:
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise UserError(
            f"array_file: the images of {file} have shape {images.shape}: it should be "
            "[N, H, W, C], or [N, H, W] with one channel, and not empty"
        )
    if images.dtype.kind not in "biuf" or (window is None and images.dtype != np.uint8):
        some = np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(int))
        what = f"array_file: {file} ({len(some)} of its {len(images)} images looked at)"
        raise no_window(what, images[some])


def _as_labels(labels: np.ndarray | None, file: Path, count: int) -> np.ndarray | None:
    """[N] int32 in memory."""
    if labels is None:
        return None
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"array_file: the labels of {file} are of type {labels.dtype}: save them as integers"
        )
    if labels.shape != (count,):
        raise UserError(
            f"array_file: the labels of {file} have shape {labels.shape}: its {count} images need "
            f"({count},)"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= MAX_CLASSES))
    if wrong.size:
        raise UserError(
            f"array_file: label {labels[wrong[0]]} of example {wrong[0]} of {file} is no class: "
            f"number them from 0 to at most {MAX_CLASSES - 1}"
        )
    return np.array(labels, np.int32)


def _digest(path: Path, images: np.ndarray, labels: np.ndarray | None) -> str:
    """Of the file's size and ends, the shape and type of the images, and the labels."""
    digest = hashlib.sha256(f"{path.stat().st_size} {images.shape} {images.dtype}".encode())
    with path.open("rb") as file:
        digest.update(file.read(_MIB))
        file.seek(max(0, path.stat().st_size - _MIB))
        digest.update(file.read(_MIB))
    if labels is not None:
        digest.update(labels.tobytes())
    return digest.hexdigest()[:16]
