"""What the sources of medical and scientific images share: a folder of files that hold one or more
slices each, and values of any depth that a window maps to bytes.
"""

import array
import hashlib
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mae_jax.data.files import Files
from mae_jax.data.images import BadImage, Window, window_to_bytes
from mae_jax.data.sources import Source
from mae_jax.types import UserError

_CHUNK = 1000  # files whose headers are read ahead


class Slices(Source):
    """Slices of files, read when asked for; each is an example. None of the files stays open;
    memory holds 16 bytes for each, however many slices it has.

    Args:
        files: those that hold the slices.
        count: path -> how many slices the file has, from its header.
        load: (path, which slice) -> [H, W, C] uint8.

    Raises:
        UserError: `count` raises anything, or finds no slice; names the file and the reason.
    """

    def __init__(
        self,
        files: Files,
        count: Callable[[Path], int],
        load: Callable[[Path, int], np.ndarray],
    ):
        self.files, self._load = files, load
        counts = array.array("q")
        with ThreadPoolExecutor(16) as pool:  # most of the time goes into waiting for the disk
            for first in range(0, len(files), _CHUNK):
                chunk = range(first, min(first + _CHUNK, len(files)))
                counts.extend(pool.map(lambda i: _count(files.path(i), count), chunk))
        self._ends = np.cumsum(counts, dtype=np.int64)
        self.num_examples = int(self._ends[-1])
        self.class_names, self.notes = files.class_names, files.notes
        self.digest = hashlib.sha256(files.digest.encode() + counts.tobytes()).hexdigest()[:16]

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' [H, W, C] uint8 of each index, and 'label' if there are classes.

        Raises:
            BadImage: a slice cannot be read; says why.
        """
        places = [self._place(index) for index in indices]
        fields = {"image": [self._image(file, k) for file, k, _ in places]}
        if self.class_names:
            fields["label"] = [self.files.label(file) for file, _, _ in places]
        return fields

    def name(self, index: int) -> str:
        """What an example is called: 'patient1/scan.dcm[3]', or just the file if that is all of
        it.
        """
        file, k, count = self._place(index)
        return self.files[file] if count == 1 else f"{self.files[file]}[{k}]"

    def _place(self, index: int) -> tuple[int, int, int]:
        """Which file, which of its slices, and how many it has."""
        file = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[file - 1]) if file else 0
        return file, int(index) - first, int(self._ends[file]) - first

    def _image(self, file: int, k: int) -> np.ndarray:
        try:
            return self._load(self.files.path(file), k)
        except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
            raise BadImage(reason(error)) from error


def require(kind: str, package: str) -> None:
    """Raises UserError if the package that reads files of this kind is not installed."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{kind} needs {package}: pip install 'mae-jax[medical]'") from error


def no_window(what: str, values: np.ndarray) -> UserError:
    """The error that asks for a window.

    Args:
        what: holds the values; starts the message.
        values: all or some of them, any shape.
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
    """Values of any shape and depth to uint8 through a window; NaN becomes 0.

    Raises:
        ValueError: there is no window, and the values are not uint8 already.
    """
    if window is None:
        if values.dtype != np.uint8:
            raise ValueError(f"it holds {values.dtype} values, which need a window=(low, high)")
        return values
    return window_to_bytes(values, window)


def reason(error: Exception) -> str:
    """The message of an error in one line, or its kind if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _count(path: Path, count: Callable[[Path], int]) -> int:
    try:
        found = count(path)
    except UserError:
        raise
    except Exception as error:  # on damaged files, readers raise errors of a dozen kinds
        raise UserError(f"cannot read {path}: {reason(error)}; repair or remove it") from error
    if found < 1:
        raise UserError(f"there is no image in {path}: remove it from the folder")
    return found
