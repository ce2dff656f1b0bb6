"""Images that a table lists, with labels in its columns: CSV, TSV, JSON lines or Parquet."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.data import alpha, listed
from mae_jax.data.classes import shortened
from mae_jax.data.compact import Texts
from mae_jax.data.decoding import MAX_PIXELS
from mae_jax.data.files import existing, expanded, read_bytes
from mae_jax.data.images import BadImage, Window
from mae_jax.data.labeling import MISSING, Columns, Labeled, Labeling, labeled
from mae_jax.data.reading import CHANGES, Reading, spread
from mae_jax.data.table_files import read_columns, taken
from mae_jax.spec import check_choice
from mae_jax.types import UserError

Split = tuple[str, str | int]
"""(column, its value in the rows to use)."""


class Table(Labeled):
    """Image files with labels; see `make`.

    Args:
        root: folder that relative paths belong to.
        paths: `pyarrow.Array` of N texts.
        labeling: labels of the N files.
        decoder: makes images of the bytes of files.
        notes: lines to report.
    """

    reading = CHANGES

    def __init__(
        self,
        root: Path,
        paths: Any,
        labeling: Labeling,
        decoder: Reading,
        *,
        notes: Sequence[str],
    ):
        super().__init__(len(paths), labeling)
        self.root, self.paths, self.decoder = root, Texts(paths), decoder
        self.notes = (*notes, *labeling.notes, *decoder.look(self._some()))
        listing = hashlib.sha256(labeling.digest.encode())
        self.paths.update(listing)
        self.digest = listing.hexdigest()[:16]

    def name(self, index: int) -> str:
        """Path of the file, as in the table."""
        return self.paths[index]

    def read(self, indices: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """'image', still encoded, and the fields of the labels."""
        images = [self.decoder(read_bytes(self.root / self.name(index))) for index in indices]
        return {"image": images, **self.labeling.read(indices)}

    def _some(self) -> Iterator[bytes]:
        """The bytes of a few files, spread over all of them."""
        for index in spread(self.num_examples):
            try:
                yield read_bytes(self.root / self.name(index))
            except (BadImage, OSError):  # reading it in training reports the error
                continue


def make(
    file: str,
    *,
    root: str = "",
    image: str = "file",
    label: str | None = None,
    labels: str | Sequence[str] = (),
    value: str | Sequence[str] = (),
    order: Sequence[str | int] = (),
    classes: int | str | Sequence[str | int] | None = None,
    separator: str = "|",
    none: str | None = None,
    weight: str = "",
    group: str = "",
    split: Split | None = None,
    missing: str = "refuse",
    missing_labels: str = "refuse",
    captions: str = "",
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
) -> Table:
    """Images that a table lists: table('photos.csv', split=(part, train)). All paths and labels are
    in memory. Cells mean the same in all formats: 1, 1.0 and '1' in a column of whole numbers are
    one class.

    Args:
        file: a table whose first row names the columns (.csv, .tsv, .txt; separated by commas,
            semicolons, tabs or '|'), JSON lines (.jsonl, .ndjson, .json) or Parquet (.parquet).
        root: folder that relative paths belong to; '': the folder of the table.
        image: column with the paths of the image files; '\\\\' is read as '/'.
        label: column with the class, which becomes the field 'label'; None: 'label', unless labels,
            value or captions are given; '': none.
        labels: columns with 1 or 0 for each class, or one column with lists of classes, or with
            texts of classes and a separator. They become the field 'labels' [classes] uint8; 255 is
            unknown, from an empty cell or -1.
        value: column with a number, or several. They become the field 'value'.
        order: classes of 'label' in their order, for tasks that learn an order.
        classes: classes of 'label', or of one column 'labels': how many (0, 1, ...), their names,
            or a text file with a name on each line; cells hold names, or numbers from 0. None:
            those of the rows, as numbers or texts in ascending order.
        separator: between the classes in a text of 'labels'.
        none: text in a column 'labels' that means none of the classes; '': an empty cell does.
        weight: column with the field 'weight', for data.sampling='weighted'.
        group: column with the field 'group', such as a patient: data.held_out splits no group.
        split: (column, value): use only rows with this value.
        missing: 'refuse' or 'skip' rows whose file is missing. A folder with at least 16 of the
            files is listed once; other files are looked up one by one.
        missing_labels: 'refuse' or 'skip' rows without label or value. Empty labels are unknown.
        captions: column of texts, or of lists of them, which the source `captioned` reads.
        channels, window, background, max_pixels: of the images, as for `folder`.

    Raises:
        UserError: the table cannot be read, lacks a column, has an invalid cell, or lists missing
            files.
    """
    decoder = Reading(
        "table", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    check_choice("table: missing", missing, MISSING)
    label = "label" if label is None and not (labels or value or captions) else label or ""
    spec = Columns(
        label=label,
        labels=labels,
        value=value,
        order=order,
        classes=classes,
        separator=separator,
        none=none,
        weight=weight,
        group=group,
        missing_labels=missing_labels,
        captions=captions,
    )
    spec.check("table")
    path = expanded(file)
    folder = existing("table", root) if root else path.absolute().parent
    columns, rows, notes = _rows(path, folder, image, spec, split, skip=missing == "skip")
    labeling = Labeling("table", spec, columns, rows)
    return Table(folder, columns[image], labeling, decoder, notes=notes)


def _rows(
    path: Path, folder: Path, image: str, spec: Columns, split: Split | None, *, skip: bool
) -> tuple[dict[str, Any], np.ndarray, list[str]]:
    """The columns of the rows to use, the numbers of these rows in the table, and lines to report.

    Args:
        path, folder, image, spec, split: see `make`.
        skip: whether to leave out missing files.
    """
    wanted = dict.fromkeys((image, *spec.wanted, *([split[0]] if split else [])))
    columns = read_columns("table", path, list(wanted))
    columns[image], notes = listed.portable("table", image, columns[image])
    rows = np.arange(len(columns[image]), dtype=np.int32)
    if split:
        columns, rows = taken(columns, rows, _of_split(path, split, columns[split[0]]))
    known, lines = labeled("table", spec, columns, rows)
    columns, rows = taken(columns, rows, known)
    absent, differ = listed.looked_up(folder, columns[image])
    lines += listed.check_missing("table", folder, columns[image], absent, skip=skip)
    columns, rows = taken(columns, rows, ~absent)
    if not len(rows):
        more = f": {'; '.join(lines)}" if lines else ""
        raise UserError(f"table: {path.name} has no rows to use{more}")
    return columns, rows, notes + lines + ([] if differ else listed.repeated(columns[image]))


def _of_split(path: Path, split: Split, column: Any) -> np.ndarray:
    """[N] bool: which rows have a value in a column.

    Raises:
        UserError: no row has it.
    """
    import pyarrow.compute as pc

    name, value = split
    use = np.asarray(pc.equal(column, str(value)).fill_null(False))
    if not use.any():
        known = sorted(filter(None, pc.unique(column).to_pylist()))
        raise UserError(
            f"table: no row of {path.name} has {name}={value!r}: its values are {shortened(known)}"
        )
    return use
