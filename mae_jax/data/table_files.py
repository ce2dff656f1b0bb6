"""Reads columns of a table as Arrow arrays of texts: CSV, TSV, JSON lines or Parquet.

All cells become texts, so that a table has the same meaning in each format. Empty cells become
null. Lists, in JSON and Parquet, become lists of texts.
"""

import csv
import io
import json
import math
import mmap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.errors import nearest
from mae_jax.types import UserError

DELIMITERS = ",;\t|"
"""Characters between the cells of a row; the header decides which one a file uses."""
_HEAD = 2**20  # bytes that hold the header
_SHOWN = 20


def read_columns(where: str, path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """Columns of a table by name, each a `pyarrow.Array` of texts or of lists of texts.

    Args:
        where: the source, for messages.
        path: the table; its suffix is one of `READERS`. A text is UTF-8, with or without a
            byte-order mark, or UTF-16 with one.
        wanted: names of the columns to read.

    Raises:
        UserError: the file is missing or damaged, or has no such column.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{where}: {path.name!r} is no table: its name must end in {_ENDINGS}")
    if not path.is_file():
        raise UserError(f"{where}: there is no file {str(path)!r}: give the path of a table")
    import pyarrow as pa

    try:
        columns = reader(where, path, wanted)
        return {name: texts(column) for name, column in columns.items()}
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        encoding = "; save it as UTF-8" if "UTF8" in reason or "utf-8" in reason else ""
        raise UserError(f"{where}: cannot read {str(path)!r}: {reason}{encoding}") from error


def check_columns(where: str, path: Path, wanted: Sequence[str], known: Collection[str]) -> None:
    """Raises UserError if a table lacks a column, or has two of its name.

    Args:
        where: the source, for messages.
        path: the table, for messages.
        wanted: names of columns.
        known: names of all columns of the table, in its order.
    """
    listed = list(known)
    for name in wanted:
        if name not in listed:
            near = nearest(name, listed).partition("did you mean ")[2]
            more = ", ..." if len(listed) > _SHOWN else ""
            raise UserError(
                f"{where}: {path.name} has no column {name!r}"
                + (f": did you mean {near}" if near else ":")
                + f" its columns are {', '.join(listed[:_SHOWN])}{more}"
            )
        if listed.count(name) > 1:
            raise UserError(
                f"{where}: {path.name} has {listed.count(name)} columns {name!r}: rename one"
            )


def texts(column: Any) -> Any:
    """A column of any type as a `pyarrow.Array` of texts, or of lists of texts; see the module.

    Args:
        column: `pyarrow.Array` or `ChunkedArray`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type):  # before chunks of over 2 GiB are joined
        column = column.cast(pa.large_string())
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pc.cast(array, pa.large_list(pa.large_string()))
    if pa.types.is_dictionary(kind):
        array, kind = pc.cast(array, kind.value_type), kind.value_type
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), None, array)
    array = pc.cast(array, pa.large_string())
    characters = data_of(array)
    if not len(characters) or characters.min() <= ord(" ") or characters.max() > ord("~"):
        array = pc.utf8_trim_whitespace(array)  # slow, and most columns have nothing to trim
    empty = pc.equal(array, "")
    return pc.if_else(empty, None, array) if pc.any(empty).as_py() else array


def data_of(column: Any) -> np.ndarray:
    """The bytes [n] uint8 of a `pyarrow.Array` of texts one after another, and possibly more."""
    return np.frombuffer(column.buffers()[-1] or b"", np.uint8)


def taken(
    columns: Mapping[str, Any], rows: np.ndarray, use: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Some rows of columns.

    Args:
        columns: name -> `pyarrow.Array` of N cells.
        rows: [N] int, numbers of the rows in the table.
        use: [N] bool.
    """
    import pyarrow as pa

    if use.all():
        return dict(columns), rows
    mask = pa.array(use)
    return {name: column.filter(mask) for name, column in columns.items()}, rows[use]


def _delimited(where: str, path: Path, wanted: Sequence[str]) -> Mapping[str, Any]:
    """Columns of a CSV or TSV file."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    with path.open("rb") as file:
        head = file.read(_HEAD)
        quoted = head and mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ).find(b'"') >= 0
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = head.decode("utf-16" if wide else "utf-8-sig", errors="replace")
    delimiter, header = _header(text, wanted)
    names = [name.strip() for name in header]
    check_columns(where, path, wanted, names)
    stored = {name: header[names.index(name)] for name in wanted}
    table = arrow.read_csv(
        path,
        read_options=arrow.ReadOptions(encoding="utf16" if wide else "utf8"),
        parse_options=arrow.ParseOptions(delimiter=delimiter, newlines_in_values=bool(quoted)),
        convert_options=arrow.ConvertOptions(
            include_columns=list(stored.values()),
            column_types=dict.fromkeys(stored.values(), pa.large_string()),
        ),
    )
    return {name: table[column] for name, column in stored.items()}


def _header(text: str, wanted: Sequence[str]) -> tuple[str, list[str]]:
    """The delimiter of a table, and the cells of its first row: the delimiter that finds most of
    the wanted columns, then that which finds most columns.
    """
    rows = {}
    for delimiter in DELIMITERS:
        rows[delimiter] = next(csv.reader(io.StringIO(text), delimiter=delimiter), [])

    def score(delimiter: str) -> tuple[int, int]:
        names = {name.strip() for name in rows[delimiter]}
        return len(names & {*wanted}), len(names)

    best = max(DELIMITERS, key=score)
    if not any(map(str.strip, rows[best])):
        raise ValueError("its first line is empty, and should name the columns")
    return best, rows[best]


def _json_lines(where: str, path: Path, wanted: Sequence[str]) -> Mapping[str, Any]:
    """Columns of a file with a JSON object on each line; keys that an object lacks are null."""
    cells: dict[str, list] = {name: [] for name in wanted}
    known: dict[str, None] = {}
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"line {number} should be an object, {{column: value, ...}}")
            known.update(dict.fromkeys(row))
            for name in wanted:
                cells[name].append(row.get(name))
    check_columns(where, path, wanted, known)
    return {name: column_of(values) for name, values in cells.items()}


def column_of(values: Sequence[Any]) -> Any:
    """A `pyarrow.Array` of values of JSON: of texts, or of lists of texts.

    Raises:
        ValueError: a value is an object.
    """
    import pyarrow as pa

    cells = list(map(_cell, values))
    if any(isinstance(cell, list) for cell in cells):
        cells = [[cell] if isinstance(cell, str) else cell for cell in cells]
        return pa.array(cells, pa.large_list(pa.large_string()))
    return pa.array(cells, pa.large_string())


def _cell(value: Any) -> str | list | None:
    """A value of JSON as a text or a list of texts."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, list):
        return [_cell(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        raise ValueError(f"a cell holds an object, {json.dumps(value)[:80]}: use texts or numbers")
    return json.dumps(value)


def _parquet(where: str, path: Path, wanted: Sequence[str]) -> Mapping[str, Any]:
    """Columns of a Parquet file."""
    from pyarrow import parquet

    check_columns(where, path, wanted, parquet.read_schema(path).names)
    table = parquet.read_table(path, columns=list(wanted))
    return {name: table[name] for name in wanted}


READERS: Mapping[str, Callable[[str, Path, Sequence[str]], Mapping[str, Any]]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".txt": _delimited,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
    ".pq": _parquet,
}
"""Suffix of a table -> the function that reads columns of it."""
_ENDINGS = ", ".join(READERS)
