"""Lists the files below a folder, for all sources that read files."""

import array
import errno
import hashlib
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from mae_jax.data.decoding import BadImage
from mae_jax.data.leftovers import is_leftover, kind
from mae_jax.data.names import look_alikes, printable
from mae_jax.types import UserError


class Files:
    """Files below a folder. Names are kept in a temporary file, so memory holds 8 bytes per file.

    If all files are in sub-folders, the direct sub-folders are the classes, in the order of their
    names; `empty_classes` are sub-folders without a file. Files left behind by systems, editors and
    network drives are left out, see `leftovers`. Safe to read from several threads.

    Args:
        root: the folder.
        wanted: whether to list a file; None: the file is part of another one, and not counted.

    Raises:
        OSError: a folder cannot be listed.
    """

    def __init__(self, root: Path, wanted: Callable[[Path], bool | None]):
        self.root = root
        self.leftovers: Counter[str] = Counter()
        """Leftovers of systems and programs: kind -> count."""
        self.others: Counter[str] = Counter()
        """Files that are not wanted: extension -> count."""
        self._file = tempfile.TemporaryFile()
        self._ends = array.array("q", [0])
        beside: list[str] = []  # the first file directly in the root
        count_beside = 0
        classes: dict[str, int] = {}
        direct: list[str] = []
        digest = hashlib.sha256()
        for folder, subfolders, names in os.walk(root, onerror=_raise, followlinks=True):
            subfolders[:] = self._without_leftovers(
                sorted(name for name in subfolders if not _leads_back(folder, name)), folder=True
            )
            top = Path(folder) == root
            if top:
                direct = list(subfolders)
            for path in (Path(folder, name) for name in self._without_leftovers(sorted(names))):
                matches = wanted(path)
                if not matches:
                    if matches is not None:
                        self.others[path.suffix.lower() or path.name] += 1
                    continue
                name = path.relative_to(root).as_posix()
                self._append(name)
                digest.update(os.fsencode(name) + b"\n")
                if top:
                    beside, count_beside = beside or [name], count_beside + 1
                else:
                    classes.setdefault(class_of(name), len(classes))
        self._file.flush()
        self._labels = {} if beside else classes
        self.empty_classes = () if beside else tuple(n for n in direct if n not in classes)
        self.digest = digest.hexdigest()[:16]
        self.notes = tuple(self._notes())
        """Lines to report at the start of a run: files left out, folders that are not classes."""
        self.no_classes: tuple[str, ...] = ()
        """The note that explains why there are no classes, if there is one."""
        if beside and classes:
            self.no_classes = (
                f"no classes: {number(count_beside, 'file')}, e.g. {beside[0]!r}, beside "
                f"{number(len(classes), 'sub-folder')}; move the files into a sub-folder to use "
                "the sub-folders as classes",
            )
            self.notes += self.no_classes

    def _without_leftovers(self, names: list[str], *, folder: bool = False) -> list[str]:
        left = {name for name in names if is_leftover(name, folder=folder)}
        self.leftovers.update(kind(name, folder=folder) for name in left)
        return [name for name in names if name not in left] if left else names

    def _notes(self) -> Iterator[str]:
        if self.leftovers:
            yield (
                f"left out {number(self.leftovers.total(), 'file or folder', 'files and folders')} "
                f"that systems and programs leave behind: {counted(self.leftovers)}"
            )
        if self.others:
            count = number(self.others.total(), "file")
            yield f"left out {count} of other kinds: {counted(self.others)}"
        yield from look_alikes(self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the sub-folders; empty if there are files beside them."""
        return tuple(self._labels)

    def label(self, index: int) -> int:
        """The class of a file."""
        return self._labels[class_of(self[index])]

    def labels(self) -> np.ndarray:
        """[N] int32, the class of every file."""
        return np.fromiter(map(self.label, range(len(self))), np.int32, len(self))

    def path(self, index: int) -> Path:
        """Absolute path of a file."""
        return self.root / self[index]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        """The name of a file: its path relative to the folder, with '/'."""
        first, last = self._ends[index], self._ends[index + 1]
        return os.fsdecode(os.pread(self._file.fileno(), last - first, first))

    def _append(self, name: str) -> None:
        data = os.fsencode(name)
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))


def number(count: int, one: str, several: str = "") -> str:
    """A count with its noun: '1 file' or '2 files'."""
    return f"{count} {one if count == 1 else several or one + 's'}"


def counted(counts: Mapping[str, int], most: int = 8) -> str:
    """The most frequent names and their counts: '.txt 3, .csv 1 and 4 more'."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = sum(count for _, count in ordered[most:])
    shown = ", ".join(f"{printable(name)} {count}" for name, count in ordered[:most])
    return shown + (f" and {more} more" if more else "")


def find(source: str, path: str, wanted: Callable[[Path], bool | None], looked_for: str) -> Files:
    """The files of one kind below a folder, through links too: folder by folder, sorted.

    Args:
        source: name of the source, for messages.
        path: the folder; '~' is expanded.
        wanted: whether to list a file; see `Files`.
        looked_for: description of the wanted files, for messages.

    Raises:
        UserError: there is no such folder, or no wanted file in it.
    """
    root = existing(source, path)
    try:
        files = Files(root, wanted)
    except OSError as error:
        raise UserError(f"{source}: cannot read the folder {str(root)!r}: {error}") from error
    if not len(files):
        notes = "; ".join(("", *files.notes))
        raise UserError(
            f"{source}: no files in {str(root)!r} that it reads: looked for {looked_for}{notes}"
        )
    return files


def existing(kind: str, path: str) -> Path:
    """The path of a folder; raises UserError if there is none."""
    root = expanded(path)
    try:
        is_folder = bool(path) and root.is_dir()
    except OSError as error:  # e.g. a name that is too long
        raise UserError(f"{kind}: cannot open {path!r}: {error.strerror}") from error
    if not is_folder:
        raise UserError(f"{kind}: there is no folder {path!r}: give the path of a folder")
    return root


def expanded(path: str | Path) -> Path:
    """Expands '~' in a path; '~user' stays as it is if there is no such user."""
    return Path(os.path.expanduser(path))


def _leads_back(folder: str, name: str) -> bool:
    """Whether a sub-folder is a link to the folder itself or to one above it: a cycle."""
    path = os.path.join(folder, name)
    return os.path.islink(path) and Path(folder).resolve().is_relative_to(Path(path).resolve())


def check_regular(path: Path) -> None:
    """Raises BadImage for a pipe, socket or device, since opening a pipe may block forever."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise BadImage(f"it is a pipe, socket or device, not a file: {path}")


def read_bytes(path: Path) -> bytes:
    """The contents of a file.

    Raises:
        BadImage: the file is missing, or is a folder, pipe, socket or device.
        OSError: any other failure, which may be transient and must not count as a bad image.
    """
    try:
        check_regular(path)
        return path.read_bytes()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EISDIR, errno.ELOOP):
            raise
        raise BadImage(f"{error.strerror}: {path}") from error


def class_of(name: str) -> str:
    """The direct sub-folder that a file is in."""
    return name.partition("/")[0]


def class_labels(names: Iterable[str]) -> dict[str, int]:
    """Class -> label, in the order of the names; {} unless all of them are in sub-folders."""
    names = list(names)
    if not all("/" in name for name in names):
        return {}
    return {name: label for label, name in enumerate(dict.fromkeys(map(class_of, names)))}


def _raise(error: OSError) -> None:
    raise error
