"""Base of the sources of medical and scientific images: a folder of files that hold one or more
slices each, with values of any depth that a window maps to uint8.
"""

import array
import hashlib
import importlib
import logging
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mae_jax.data.files import Files, check_regular, class_labels, class_of
from mae_jax.data.images import BadImage, Window, window_to_bytes
from mae_jax.data.names import printable
from mae_jax.data.sources import Source
from mae_jax.types import UserError

PACKAGES = {
    "dicom": ("pydicom", "imagecodecs"),
    "nifti": ("nibabel",),
    "ome_zarr": ("tensorstore",),
    "tiff": ("tifffile", "imagecodecs"),
}
"""Source -> packages that read its files; only the first is always needed."""

_CHUNK = 1000  # files with headers read ahead


class NoImage(Exception):
    """Raised for a file of a kind without an image; the message names the kind, e.g. 'RT Plan'."""


class Remarks:
    """Counts facts about files, with an example file for each; thread-safe."""

    def __init__(self):
        self._found: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def add(self, fact: str, name: str) -> None:
        """Counts the file `name` for a fact."""
        with self._lock:
            count, first = self._found.get(fact, (0, name))
            self._found[fact] = (count + 1, min(first, name))

    def counts(self) -> str:
        """All in a line: '3 RT Plan, e.g. a/plan.dcm; 1 Comprehensive SR, e.g. b/report.dcm'."""
        items = sorted(self._found.items(), key=lambda item: (-item[1][0], item[0]))
        return "; ".join(
            f"{count} {fact}, e.g. {printable(first)}" for fact, (count, first) in items
        )

    def lines(self) -> list[str]:
        """A line for each fact: 'FACT: 3 files, e.g. a/scan.dcm'."""
        return [
            f"{fact}: {count} file{'s' * (count > 1)}, e.g. {printable(first)}"
            for fact, (count, first) in sorted(self._found.items())
        ]


class Slices(Source):
    """Slices of files as examples, read on demand. No file stays open; memory holds 16 bytes per
    file, however many slices it has.

    Files of a kind without an image are left out, and counted in `notes`. A damaged file counts as
    one unreadable example, and is listed in `damaged`. Neither creates a class.

    Args:
        files: the files.
        count: path -> number of slices in the file, from its header. Raises NoImage for a file to
            leave out, UserError for a problem that the user must fix first, and any other error
            for a damaged file.
        load: (path, slice index) -> [H, W, C] uint8.
        remarks: facts that `count` collects, for `notes`.

    Raises:
        UserError: from `count`, or because no file is readable.
    """

    def __init__(
        self,
        files: Files,
        count: Callable[[Path], int],
        load: Callable[[Path, int], np.ndarray],
        remarks: Remarks | None = None,
    ):
        self.files, self._load = files, load
        self._left_out, self._damaged = Remarks(), {}
        counts = array.array("q")
        with ThreadPoolExecutor(16) as pool:  # mostly waits for the disk
            for first in range(0, len(files), _CHUNK):
                chunk = range(first, min(first + _CHUNK, len(files)))
                counts.extend(pool.map(lambda i: self._count(i, count), chunk))
        self._ends = np.cumsum(counts, dtype=np.int64)
        self.num_examples = int(self._ends[-1])
        self._check_any(counts)
        self._labels = self._classes(counts)
        self.names = {"label": tuple(self._labels)} if self._labels else {}
        self.empty_classes = tuple(n for n in files.class_names if n not in self._labels)
        self.digest = hashlib.sha256(files.digest.encode() + counts.tobytes()).hexdigest()[:16]
        self.damaged = [f"{printable(files[i])}: {why}" for i, why in sorted(self._damaged.items())]
        left_out = self._left_out.counts()
        self.notes = (
            *(note for note in files.notes if not (self._labels and note in files.no_classes)),
            *([f"left out files without an image: {left_out}"] if left_out else []),
            *([f"cannot read {len(self.damaged)}, e.g. {self.damaged[0]}"] if self.damaged else []),
            *(remarks.lines() if remarks else []),
        )

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' [H, W, C] uint8 of each index, and 'label' if there are classes.

        Raises:
            BadImage: a slice cannot be read.
        """
        located = [self._locate(index) for index in indices]
        fields = {"image": [self._image(file, k) for file, k, _ in located]}
        if self.class_names:
            fields["label"] = [self._labels[class_of(self.files[file])] for file, _, _ in located]
        return fields

    def labels(self) -> np.ndarray | None:
        """[N] int32, from the names of the files, -1 for damaged ones; None without classes."""
        if not self.class_names:
            return None
        slices = np.diff(self._ends, prepend=0)
        labels = np.full(len(slices), -1, np.int32)
        for file in np.flatnonzero(slices).tolist():
            if file not in self._damaged:
                labels[file] = self._labels[class_of(self.files[file])]
        return np.repeat(labels, slices)  # [files] to [N]

    def name(self, index: int) -> str:
        """Name of an example: 'patient1/scan.dcm[3]', or just the file if it has one slice."""
        file, k, count = self._locate(index)
        return self.files[file] if count == 1 else f"{self.files[file]}[{k}]"

    def group(self, index: int) -> str:
        """The file: neighboring slices are almost the same image."""
        return self.files[self._locate(index)[0]]

    def groups(self) -> np.ndarray | None:
        """[N] int32, the file of each example; None if all files have one slice."""
        slices = np.diff(self._ends, prepend=0)
        several = int(slices.max()) > 1
        return np.repeat(np.arange(len(slices), dtype=np.int32), slices) if several else None

    def _count(self, file: int, count: Callable[[Path], int]) -> int:
        """Number of examples of a file: its slices, 0 if left out, 1 if damaged."""
        path = self.files.path(file)
        try:
            check_regular(path)
            slices = count(path)
            if slices < 1:
                raise BadImage("there is no image in it")
        except UserError:
            raise
        except NoImage as error:
            self._left_out.add(str(error), self.files[file])
            return 0
        except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
            self._damaged[file] = reason(error)
            return 1
        return slices

    def _check_any(self, counts: array.array) -> None:
        """Raises UserError if no file is a readable image."""
        if len(self._damaged) < sum(count > 0 for count in counts):
            return
        if self._damaged:
            first = min(self._damaged)
            more = f" (nor can any of {len(self._damaged)} files)" * (len(self._damaged) > 1)
            raise UserError(
                f"cannot read {self.files.path(first)}{more}: {self._damaged[first]}; "
                "repair or remove it"
            )
        raise UserError(
            f"there is no image in {self.files.root}, only {self._left_out.counts()}: give a "
            "folder of images"
        )

    def _classes(self, counts: array.array) -> dict[str, int]:
        """Class -> label, as in `Files`, from the files that are readable images only."""
        if not self._damaged and 0 not in counts:
            return {name: label for label, name in enumerate(self.files.class_names)}
        readable = (i for i, n in enumerate(counts) if n and i not in self._damaged)
        return class_labels(self.files[i] for i in readable)

    def _locate(self, index: int) -> tuple[int, int, int]:
        """File index, slice index in that file, and number of its slices."""
        file = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[file - 1]) if file else 0
        return file, int(index) - first, int(self._ends[file]) - first

    def _image(self, file: int, k: int) -> np.ndarray:
        if file in self._damaged:
            raise BadImage(self._damaged[file])
        try:
            return self._load(self.files.path(file), k)
        except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
            raise BadImage(reason(error)) from error


def require(kind: str) -> None:
    """Raises UserError if the package that reads files of this kind is not installed. Silences its
    logs and warnings, since this library reports each unreadable file in one line.
    """
    package = PACKAGES[kind][0]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{kind} needs {package}, which is not installed: pip install "
            f"{' '.join(PACKAGES[kind])}"
        ) from error
    logging.getLogger(package).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=rf"{package}(\..*)?$")


def no_window(what: str, values: np.ndarray) -> UserError:
    """The error for values that need a window.

    Args:
        what: holder of the values, the start of the message.
        values: all or some of the values, any shape.
    """
    if values.dtype.kind not in "biuf":
        return UserError(f"{what} holds {values.dtype} values: save them as integers or floats")
    finite = values[np.isfinite(values)]
    ends = f"from {finite.min():g} to {finite.max():g}" if finite.size else "none of them finite"
    return UserError(
        f"{what} holds {values.dtype} values, {ends}: give window=(low, high), the values that "
        "become 0 and 255"
    )


def to_bytes(values: np.ndarray, window: Window | None) -> np.ndarray:
    """Maps values of any shape and type to uint8 by a window; NaN becomes 0.

    Raises:
        ValueError: `window` is None and the values are not uint8.
    """
    if window is None:
        if values.dtype != np.uint8:
            raise ValueError(f"it holds {values.dtype} values, which need a window=(low, high)")
        return values
    return window_to_bytes(values, window)


def reason(error: Exception) -> str:
    """The message of an error in one line, or its type if it has none. The message of a KeyError is
    a key alone: that it is missing.
    """
    if isinstance(error, KeyError) and error.args and str(error.args[0]).isidentifier():
        return f"it has no {error.args[0]!r}"
    return " ".join(str(error).split()) or type(error).__name__
