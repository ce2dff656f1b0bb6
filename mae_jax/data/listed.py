"""Files that a table lists: their paths, and which of them are missing or listed twice."""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.data.files import number
from mae_jax.data.table_files import data_of
from mae_jax.types import UserError

_LISTED_FROM = 16  # a folder with so many of the files is listed, others' files are looked up
_CHUNK = 1024  # files that a thread looks up at a time
_THREADS = 16
_SHOWN = 3


def portable(where: str, name: str, column: Any) -> tuple[Any, list[str]]:
    """Paths with '/', and lines to report.

    Args:
        where: the source, for messages.
        name: of the column.
        column: `pyarrow.Array` of texts: paths, those of Windows too.

    Raises:
        UserError: a path is empty, or begins with the drive of another machine.
    """
    import pyarrow.compute as pc

    if column.null_count:
        row = int(np.argmax(np.asarray(column.is_null())))
        raise UserError(
            f"{where}: {name!r} of row {row + 1}"
            + (f" (and of {column.null_count - 1} more)" if column.null_count > 1 else "")
            + " is empty: each row needs the path of a file"
        )
    notes = []
    if (data_of(column) == ord("\\")).any():
        count = pc.sum(pc.match_substring(column, "\\")).as_py()
        column = pc.replace_substring(column, "\\", "/")
        notes += [f"{number(count, 'path')} with backslashes, read as '/'"] * bool(count)
    if pc.any(pc.starts_with(column, "./")).as_py():
        column = pc.replace_substring_regex(column, r"^(\./+)+", "")
    if len(column) and re.match("[A-Za-z]:/", first := column[0].as_py()) and os.name != "nt":
        raise UserError(
            f"{where}: {first!r} begins with a drive of Windows: write paths relative to a folder, "
            "and give it as root"
        )
    return column, notes


def looked_up(root: Path, paths: Any) -> tuple[np.ndarray, bool]:
    """Whether each file is missing, [N] bool; and whether all paths are known to differ. A folder
    with at least 16 of the files is listed once; other files are looked up one by one.

    Args:
        root: folder that relative paths belong to.
        paths: `pyarrow.Array` of N texts.
    """
    import pyarrow.compute as pc

    codes, folders = _folders(paths)
    counts = np.bincount(codes, minlength=len(folders))
    large = np.flatnonzero(counts >= _LISTED_FROM)
    missing, differ = np.ones(len(paths), bool), False
    unsure = missing
    if len(large):
        there = [_names(root, folders[i]) for i in large]
        known = _joined(there)
        places = pc.index_in(paths.cast(known.type), value_set=known)
        missing = np.asarray(places.is_null())
        differ = not missing.any() and np.bincount(np.asarray(places)).max() == 1
        gone = [i for i, (names, _) in zip(large, there, strict=True) if not names]
        unsure = missing & ~np.isin(codes, gone)
    rows = np.flatnonzero(unsure)  # in small folders, or under another form of the name
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = (rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK))
        found = list(pool.map(lambda chunk: [*_absent(root, paths, chunk)], chunks))
    missing[rows] = [absent for part in found for absent in part]
    return missing, differ


def check_missing(
    where: str, root: Path, paths: Any, missing: np.ndarray, *, skip: bool
) -> list[str]:
    """Lines to report about missing files.

    Raises:
        UserError: files are missing, and not to be skipped, or all are.
    """
    count, total = int(missing.sum()), len(missing)
    if not count:
        return []
    first = ", ".join(repr(paths[int(i)].as_py()) for i in np.flatnonzero(missing)[:_SHOWN])
    files = f"{count} of {number(total, 'file')}: {first}" + ", ..." * (count > _SHOWN)
    if skip and count < total:
        return [f"left out the missing {files}"]
    raise UserError(
        f"{where}: missing in {str(root)!r}: {files}; correct the paths, or give another root"
        + ("" if skip or count == total else ", or leave such rows out with missing='skip'")
    )


def repeated(paths: Any) -> list[str]:
    """A line to report if files are listed more than once."""
    import pyarrow.compute as pc

    if len(paths) == pc.count_distinct(paths).as_py():
        return []
    counts = pc.value_counts(paths)
    several = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    first = ", ".join(map(repr, several[:_SHOWN].to_pylist()))
    more = ", ..." * (len(several) > _SHOWN)
    return [f"{number(len(several), 'file')} in several rows, each an example: {first}{more}"]


def _folders(paths: Any) -> tuple[np.ndarray, list[str]]:
    """Number of the folder of each path, [N] int, and the folders: '' or texts that end in '/'."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pieces = pc.split_pattern(paths, "/", max_splits=1, reverse=True)  # at the last one
    starts = np.asarray(pieces.offsets)
    inside = pa.array(np.diff(starts) == 2)
    names = pc.if_else(inside, pieces.values.take(pa.array(starts[:-1])), None)
    encoded = names.dictionary_encode()
    codes = np.asarray(encoded.indices.fill_null(len(encoded.dictionary)))
    return codes, [*(f"{name}/" for name in encoded.dictionary.to_pylist()), ""]


def _names(root: Path, folder: str) -> tuple[bytes, np.ndarray]:
    """The paths of all files in a folder as in the table, one after another, and their lengths [M];
    none if it cannot be listed.
    """
    prefix = os.fsencode(folder)
    try:
        names = os.listdir(os.fsencode(root / folder))
    except (OSError, ValueError):  # a folder that is missing, or whose name holds a 0
        names = []
    lengths = np.fromiter(map(len, names), np.int64, len(names)) + len(prefix)
    return prefix + prefix.join(names) if names else b"", lengths


def _joined(parts: Sequence[tuple[bytes, np.ndarray]]) -> Any:
    """`pyarrow.Array` of all paths of `_names`."""
    import pyarrow as pa

    texts, lengths = zip(*parts, strict=True)
    offsets = np.append(0, np.cumsum(np.concatenate(lengths)))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def _absent(root: Path, paths: Any, rows: np.ndarray) -> Iterator[bool]:
    for row in rows:
        yield not os.path.isfile(os.path.join(root, paths[int(row)].as_py()))
