"""Data sets of the Hugging Face hub on disk: Parquet shards, or the folder that `save_to_disk` of
the package `datasets` writes. Nothing is downloaded, and that package is not needed.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.data import alpha, arrow_files
from mae_jax.data.decoding import MAX_PIXELS
from mae_jax.data.files import existing, expanded, read_bytes
from mae_jax.data.images import BadImage, Encoded, Window
from mae_jax.data.labeling import Columns, Labeled, Labeling, labeled
from mae_jax.data.reading import CHANGES, Reading, spread
from mae_jax.data.table_files import check_columns, taken, texts
from mae_jax.types import UserError

Images = arrow_files.ArrowFiles | arrow_files.ParquetFiles


class HuggingFace(Labeled):
    """Rows of a data set with images; see `make`.

    Args:
        folder: that relative paths of images belong to.
        images: column of the images, by row.
        rows: [N] int32, numbers of the rows to use.
        labeling: labels of these rows.
        decoder: makes images of the bytes of files.
        notes: lines to report.
        digest: of the files.
    """

    reading = CHANGES

    def __init__(
        self,
        folder: Path,
        images: Images,
        rows: np.ndarray,
        labeling: Labeling,
        decoder: Reading,
        *,
        notes: Sequence[str],
        digest: str,
    ):
        super().__init__(len(rows), labeling)
        self.folder, self.images, self.rows, self.decoder = folder, images, rows, decoder
        listing = hashlib.sha256(f"{digest} {labeling.digest}".encode() + rows.tobytes())
        self.digest = listing.hexdigest()[:16]
        some = (self._bytes(index) for index in spread(len(rows)))
        self.notes = (*notes, *labeling.notes, *images.notes, *decoder.look(some))

    def name(self, index: int) -> str:
        """'[row]', of the whole split."""
        return f"[{self.rows[index]}]"

    def read(self, indices: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """'image', still encoded, and the fields of the labels."""
        return {"image": list(map(self._image, indices)), **self.labeling.read(indices)}

    def _image(self, index: int) -> Encoded:
        data = self._bytes(index)
        if not data:
            raise BadImage("the row has neither bytes nor a path")
        return self.decoder(data)

    def _bytes(self, index: int) -> bytes:
        cell = self.images[int(self.rows[index])]
        if not isinstance(cell, dict):
            return cell or b""
        if cell.get("bytes") or not cell.get("path"):
            return cell.get("bytes") or b""
        return read_bytes(self.folder / cell["path"])


def make(
    path: str,
    *,
    split: str = "train",
    image: str = "image",
    label: str | None = None,
    labels: str = "",
    value: str | Sequence[str] = (),
    order: Sequence[str | int] = (),
    classes: int | str | Sequence[str | int] | None = None,
    weight: str = "",
    group: str = "",
    missing_labels: str = "refuse",
    captions: str = "",
    cache: str = "",
    channels: int = 3,
    window: Window | None = None,
    background: str | int | alpha.Color = alpha.WHITE,
    max_pixels: int = MAX_PIXELS,
) -> HuggingFace:
    """A split of a data set of the Hugging Face hub on disk, e.g. hf('beans', split=validation).
    Labels are in memory, images are read on demand.

    Args:
        path: a folder of Parquet shards whose names or folders begin with the split, with or
            without a folder 'data'; a folder of `save_to_disk`; or one .parquet or .arrow file, of
            which all rows are used.
        split: name of the split.
        image: column of the images: encoded files, or {'bytes', 'path'}.
        label: column of classes: numbers that the metadata name, other numbers, or texts; None:
            'label', unless labels, value or captions are given; '': none. -1 is unknown.
        labels: column of lists of classes, or of texts separated by '|'.
        value, order, classes, weight, group, missing_labels, captions: see `table`. The classes are
            those that the metadata declare, unless they are given.
        cache: folder for a copy of Parquet shards in Arrow format, as large as the set, which is
            read at random; '': whole row groups are read for each image.
        channels, window, background, max_pixels: of the images, as for `folder`.

    Raises:
        UserError: there are no files of the split, or one is damaged; a column is missing; a label
            is invalid.
    """
    import pyarrow as pa

    decoder = Reading(
        "hf", channels=channels, window=window, background=background, max_pixels=max_pixels
    )
    spec = Columns(
        label="label" if label is None and not (labels or value or captions) else label or "",
        labels=labels,
        value=value,
        order=order,
        classes=classes,
        weight=weight,
        group=group,
        missing_labels=missing_labels,
        captions=captions,
    )
    spec.check("hf")
    files = find(path, split)
    try:
        schema = arrow_files.schema_of(files[0])
        check_columns("hf", files[0], [image, *spec.wanted], schema.names)
        spec, columns = _labels(spec, schema, arrow_files.read_table(files, spec.wanted))
        images = _images(files, image, cache)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"hf: cannot read {path!r}: {' '.join(str(error).split())}") from error
    rows = np.arange(len(images), dtype=np.int32)
    known, lines = labeled("hf", spec, columns, rows)
    columns, rows = taken(columns, rows, known)
    if not len(rows):
        raise UserError(f"hf: {path} has no rows to use{': ' * bool(lines)}{'; '.join(lines)}")
    return HuggingFace(
        files[0].parent,
        images,
        rows,
        Labeling("hf", spec, columns, rows),
        decoder,
        notes=lines,
        digest=" ".join(f"{file.name} {file.stat().st_size}" for file in files),
    )


def find(path: str, split: str) -> list[Path]:
    """The Arrow or Parquet files of a split, in the order of their names.

    Raises:
        UserError: there are none; names the splits that there are.
    """
    if expanded(path).is_file() and expanded(path).suffix in (".parquet", ".arrow"):
        return [expanded(path)]
    root = existing("hf", path)
    if list(root.glob("data-*.arrow")):  # save_to_disk of one split
        return sorted(root.glob("data-*.arrow"))
    found: dict[str, list[Path]] = {}
    for file in sorted([*root.rglob("*.parquet"), *root.rglob("*.arrow")]):
        if file.name.startswith("cache-"):  # results of `datasets`' own functions
            continue
        parent = file.parent.name if file.parent not in (root, root / "data") else ""
        name = re.match(r"(.+?)(?:-\d+(?:-of-\d+(?:-\w+)?)?)?\.(?:parquet|arrow)$", file.name)[1]
        generic = name in ("data", "dataset") or name.isdigit()
        found.setdefault(parent if generic and parent else name, []).append(file)
    if split not in found:
        known = f"the splits are {', '.join(found)}" if found else "it has none at all"
        raise UserError(f"hf: no Arrow or Parquet files of split {split!r} in {path!r}: {known}")
    return found[split]


def _images(files: Sequence[Path], column: str, cache: str) -> Images:
    """The column of images of Arrow or Parquet files."""
    if files[0].suffix == ".parquet" and not cache:
        return arrow_files.ParquetFiles(files, column)
    if files[0].suffix == ".parquet":
        files = arrow_files.copied(files, expanded(cache))
    return arrow_files.ArrowFiles(files, column)


def _labels(spec: Columns, schema: Any, table: Any) -> tuple[Columns, dict[str, Any]]:
    """The columns of a table as texts, with the names of classes in place of their numbers."""
    columns = {}
    for name in spec.wanted:
        names = class_names = arrow_files.class_labels(schema, name)
        column = texts(table[name])
        if names is not None and name in (spec.label, spec.labels):
            column = _named(column, names)
            if spec.classes is None and not spec.order:
                spec = spec._replace(classes=class_names)
        columns[name] = column
    return spec, columns


def _named(column: Any, names: Sequence[str]) -> Any:
    """Texts of class numbers, or lists of them, as the names of the classes; -1 becomes null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_large_list(column.type):
        lengths = np.asarray(pc.list_value_length(column).fill_null(0), np.int64)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]))
        values = _named(pc.list_flatten(column), names)
        return pa.LargeListArray.from_arrays(offsets, values, mask=column.is_null())
    known = {str(number): name for number, name in enumerate(names)} | {"-1": None}
    encoded = column.dictionary_encode()
    found = [known.get(text, text) for text in encoded.dictionary.to_pylist()]
    return pa.array(found, pa.large_string()).take(encoded.indices)
