"""Random access to rows of Arrow and Parquet files, as the Hugging Face hub and `save_to_disk` of
its package `datasets` store them, and the types of columns that their metadata declare.
"""

import json
import os
import threading
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.types import UserError

_GROUPS = 4  # row groups of Parquet files to keep


class ArrowFiles:
    """Rows of Arrow stream files, memory-mapped: nothing is in memory but the pages in use.

    Args:
        paths: the files, in order.
        column: name of the column to read.
    """

    def __init__(self, paths: Iterable[Path], column: str):
        self._tables = [_mapped(path).select([column]) for path in paths]
        self._ends = np.cumsum([len(table) for table in self._tables])
        self.notes: Sequence[str] = ()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Any:
        """The cell of a row, as a Python object."""
        file = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[file - 1]) if file else 0
        return self._tables[file].column(0)[int(index) - first].as_py()


class ParquetFiles:
    """Rows of Parquet files, of which whole row groups are read; a few stay in memory.

    Args:
        paths: the files, in order.
        column: name of the column to read.
    """

    def __init__(self, paths: Iterable[Path], column: str):
        from pyarrow import parquet

        self._column, self._lock = column, threading.Lock()
        self._kept: dict[int, Any] = {}
        self._groups: list[tuple[Path, int]] = []
        rows = []
        for path in paths:
            metadata = parquet.read_metadata(path)
            groups = range(metadata.num_row_groups)
            self._groups += [(path, group) for group in groups]
            rows += [metadata.row_group(group).num_rows for group in groups]
        self._ends = np.cumsum(rows)
        self.notes = (
            f"an image is read with all of its row group, {int(np.median(rows))} rows: give "
            "cache='FOLDER' for a copy that is read at random, as large as the set",
        )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Any:
        """The cell of a row, as a Python object."""
        group = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[group - 1]) if group else 0
        return self._read(group)[int(index) - first].as_py()

    def _read(self, group: int) -> Any:
        from pyarrow import parquet

        with self._lock:
            column = self._kept.pop(group, None)
        if column is None:
            path, number = self._groups[group]
            with parquet.ParquetFile(path) as file:
                column = file.read_row_group(number, columns=[self._column]).column(0)
        with self._lock:
            self._kept[group] = column  # the last one read is the last one dropped
            for oldest in list(self._kept)[:-_GROUPS]:
                del self._kept[oldest]
        return column


def copied(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Arrow files of the same rows as Parquet files, in a folder; those that exist are used.

    Raises:
        OSError: a file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for path in paths:
        size = path.stat().st_size
        copy = folder / f"{path.stem}-{size}.arrow"
        copies.append(copy)
        if copy.exists():
            continue
        temporary = folder / f"{uuid.uuid4().hex}.tmp"
        with parquet.ParquetFile(path) as file, pa.OSFile(str(temporary), "wb") as sink:
            with pa.ipc.new_stream(sink, file.schema_arrow) as writer:
                for batch in file.iter_batches(batch_size=256):
                    writer.write_batch(batch)
        os.replace(temporary, copy)
    return copies


def read_table(paths: Sequence[Path], columns: Sequence[str]) -> Any:
    """Some columns of Arrow or Parquet files, in memory, as a `pyarrow.Table`."""
    import pyarrow as pa
    from pyarrow import parquet

    tables = []
    for path in paths:
        if path.suffix == ".parquet":
            tables.append(parquet.read_table(path, columns=list(columns)))
        else:
            tables.append(_mapped(path).select(list(columns)))
    return pa.concat_tables(tables, promote_options="permissive")


def schema_of(path: Path) -> Any:
    """The `pyarrow.Schema` of an Arrow or Parquet file."""
    from pyarrow import parquet

    return parquet.read_schema(path) if path.suffix == ".parquet" else _mapped(path).schema


def class_labels(schema: Any, column: str) -> tuple[str, ...] | None:
    """Names of the classes whose numbers a column holds, from the metadata that `datasets` writes;
    None if it declares none.

    Raises:
        UserError: the metadata are damaged.
    """
    try:
        content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = content.get("info", {}).get("features", {}).get(column, {})
        if isinstance(feature, list):
            feature = feature[0]
        if feature.get("_type") in ("Sequence", "List", "LargeList"):
            feature = feature["feature"]
        if feature.get("_type") != "ClassLabel":
            return None
        return tuple(map(str, feature["names"]))
    except (ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise UserError(
            f"hf: cannot read what the metadata declare of {column!r}: {error}"
        ) from error


def _mapped(path: Path) -> Any:
    """A memory-mapped `pyarrow.Table` of an Arrow stream or file."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source).read_all()
