"""Images of any rank and other fields in one NumPy file: a memory-mapped .npy, or an .npz."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mae_jax.data.files import expanded
from mae_jax.data.images import MODES, Window, check_window
from mae_jax.data.slices import no_window, reason, to_bytes
from mae_jax.data.sources import Source
from mae_jax.types import UserError

MAX_CLASSES = 1_000_000

_MIB = 2**20
_SAMPLE = 100  # images inspected for their range of values


class ArrayFile(Source):
    """Rows of arrays; see `make`.

    Args:
        path: path of the file.
        arrays: field -> [N, ...], in memory or memory-mapped; 'image' with or without channels,
            'label' int32.
        names: field -> names of its classes.
        rank: number of axes of an image besides the channels.
        window: values of images that become 0 and 255; None keeps the values.
    """

    def __init__(
        self,
        path: Path,
        arrays: Mapping[str, np.ndarray],
        names: Mapping[str, Sequence[str]],
        *,
        rank: int,
        window: Window | None,
    ):
        self._file, self._arrays, self._rank, self._window = path.name, arrays, rank, window
        self.num_examples = len(next(iter(arrays.values())))
        self.names, self.digest = names, _digest(path, arrays)
        shape = arrays["image"].shape if "image" in arrays else ()
        if rank == 2 and len(shape) == 4 and shape[1] in MODES and shape[3] not in MODES:
            height, width, channels = shape[1:]
            self.notes = (
                f"{path.name} is read as images of {height} x {width} pixels and {channels} "
                "channels: if its axes are [N, C, H, W], save numpy.moveaxis(images, 1, -1)",
            )

    def class_counts(self) -> np.ndarray | None:
        """[classes] int, examples of each class."""
        if "label" not in self._arrays:
            return None
        return np.bincount(self._arrays["label"], minlength=len(self.class_names))

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """Copies of the rows of every field; 'image' [*space, C]."""
        fields = {n: [np.array(array[i]) for i in indices] for n, array in self._arrays.items()}
        if "image" in fields:
            fields["image"] = [self._image(values) for values in fields["image"]]
        if "label" in fields:
            fields["label"] = [int(label) for label in fields["label"]]
        return fields

    def _image(self, values: np.ndarray) -> np.ndarray:
        values = values.reshape(*values.shape[: self._rank], -1)  # [*space, C]
        if self._window is not None:
            return to_bytes(values, self._window)
        return values.astype(np.float32) if values.dtype.kind == "f" else values

    def name(self, index: int) -> str:
        """Name of an example, e.g. 'images.npy[3]'."""
        return f"{self._file}[{index}]"


def make(
    file: str,
    *,
    labels: str | None = None,
    image: str | None = None,
    label: str | None = None,
    fields: Sequence[str] = (),
    rank: int = 2,
    window: Window | None = None,
) -> ArrayFile:
    """The images of an .npy file, with labels in a second file, or images and labels of an .npz:
    array_file('images.npy', labels='labels.npy'), array_file('set.npz', image='x', label='y').

    An .npy is memory-mapped, so images are read on demand. An .npz is loaded into memory; save
    large sets as .npy.

    Signals and volumes are images of another rank: array_file('scans.npy', rank=3). An .npz may
    hold other fields, with or without images: array_file('set.npz', label='y', fields=('text',))
    with config.data.fields=('text','label'). If it holds an array 'NAME_names' [classes] of texts,
    these name the classes of its array NAME; otherwise labels are named '0', '1', ...

    Args:
        file: of numpy.save or numpy.savez. Images are [N, H, W, C], or [N, H, W] with one
            channel; for another rank, [N, *space, C] or [N, *space].
        labels: for an .npy: path of the file with its labels, [N] integers from 0.
        image, label: for an .npz: names of its arrays of images and labels.
        fields: for an .npz: names of other arrays [N, ...], which become fields of the same name.
        rank: number of axes of an image besides the channels: 1 for signals, 2, 3 for volumes.
        window: (low, high), the values that become 0 and 255. Required for rank 2, except for
            uint8. Without it, uint8 and images of other ranks keep their values.

    Raises:
        UserError: a file or array is missing or unreadable, or has another shape or type.
    """
    check_window("array_file", window)
    file = expanded(file)
    data, arrays, names = _open(file), {}, {}
    if isinstance(data, np.ndarray):
        for name, value in (("image", image), ("label", label), ("fields", fields)):
            if value:
                raise UserError(
                    f"array_file: {name}={value!r} names an array of an .npz, and {file} is an "
                    ".npy: leave it out (labels='labels.npy' names a file of labels)"
                )
        arrays["image"] = data
        if labels is not None:
            arrays["label"] = _open_labels(labels)
    else:
        with data:
            if labels is not None:
                raise UserError(
                    f"array_file: labels={labels!r} is for an .npy, and {file} is an .npz: name "
                    "its array of labels with label=..."
                )
            chosen = {"image": image, "label": label, **dict(zip(fields, fields, strict=True))}
            for field, name in chosen.items():
                if name is not None or (field == "image" and not fields):
                    arrays[field] = _member(file, data, field, name)
                if f"{name}_names" in data.files:
                    texts = _member(file, data, field, f"{name}_names")
                    names[field] = tuple(map(str, texts))
    if "image" in arrays:
        _check_images(file, arrays["image"], window, rank)
    _check_rows(file, arrays)
    if "label" in arrays:
        arrays["label"] = _as_labels(arrays["label"], file)
        numbers = range(arrays["label"].max() + 1)
        names.setdefault("label", tuple(map(str, numbers)))
        if len(names["label"]) < len(numbers):
            raise UserError(
                f"array_file: {file} holds names of {len(names['label'])} classes, but the label "
                f"{numbers[-1]}: save a name for each class"
            )
    return ArrayFile(file, arrays, names, rank=rank, window=window)


def _open(file: Path) -> "np.ndarray | np.lib.npyio.NpzFile":
    """A memory-mapped array, or an archive of arrays."""
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy and zipfile raise errors of many kinds on damaged files
        raise UserError(
            f"array_file: cannot read {str(file)!r}: {reason(error)}; give a file that numpy.save "
            "or numpy.savez wrote, without Python objects"
        ) from error


def _open_labels(labels: str) -> np.ndarray:
    array = _open(expanded(labels))
    if not isinstance(array, np.ndarray):
        array.close()
        raise UserError(f"array_file: labels={labels!r} is an .npz: give an .npy with one array")
    return array


def _member(file: Path, archive, option: str, name: str | None) -> np.ndarray:
    """One array of an .npz, in memory."""
    if name not in archive.files:
        problem = f"has no array {name!r}" if name else f"is an .npz: give {option}=..."
        raise UserError(f"array_file: {file} {problem}; it holds {', '.join(archive.files)}")
    try:
        return np.asarray(archive[name])
    except Exception as error:
        raise UserError(
            f"array_file: cannot read {name!r} of {file}: {reason(error)}; write the file again"
        ) from error


def _check_images(file: Path, images: np.ndarray, window: Window | None, rank: int) -> None:
    if images.ndim not in (rank + 1, rank + 2) or 0 in images.shape or rank < 1:
        space = {2: "H, W"}.get(rank, f"{rank} axes")
        raise UserError(
            f"array_file: the images of {file} have shape {images.shape}: it should be "
            f"[N, {space}, C], or [N, {space}] with one channel, and not empty (for images that "
            "are not 2-D, give rank=...)"
        )
    window_optional = images.dtype == np.uint8 or rank != 2
    if images.dtype.kind not in "biuf" or (window is None and not window_optional):
        sample = np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(int))
        what = f"array_file: {file} ({len(sample)} of its {len(images)} images looked at)"
        raise no_window(what, images[sample])


def _check_rows(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises UserError if arrays have no rows, or differ in their number of rows."""
    first = next(iter(arrays))
    for field, array in arrays.items():
        count = len(arrays[first])
        if array.shape[:1] != (count,) or not count or (field == "label" and array.ndim > 1):
            more = "" if field == "label" else ", ..."
            raise UserError(
                f"array_file: the {field}s of {file} have shape {array.shape}: its {count} "
                f"{first}s need ({count},{more})"
            )


def _as_labels(labels: np.ndarray, file: Path) -> np.ndarray:
    """Checked labels, [N] int32 in memory."""
    if labels.dtype.kind not in "iu":
        raise UserError(
            f"array_file: the labels of {file} are of type {labels.dtype}: save them as integers"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= MAX_CLASSES))
    if wrong.size:
        raise UserError(
            f"array_file: label {labels[wrong[0]]} of example {wrong[0]} of {file} is invalid: "
            f"number classes from 0 to at most {MAX_CLASSES - 1}"
        )
    return np.array(labels, np.int32)


def _digest(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of the file's size, first and last MiB, shapes and types of its arrays, and labels."""
    kinds = [f"{array.shape} {array.dtype}" for n, array in arrays.items() if n != "label"]
    digest = hashlib.sha256(" ".join([str(path.stat().st_size), *kinds]).encode())
    with path.open("rb") as file:
        digest.update(file.read(_MIB))
        file.seek(max(0, path.stat().st_size - _MIB))
        digest.update(file.read(_MIB))
    if "label" in arrays:
        digest.update(arrays["label"].tobytes())
    return digest.hexdigest()[:16]
