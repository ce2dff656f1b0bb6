"""Labels of a table's rows: which columns hold them, and their arrays and names by batch field."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mae_jax.data.captions import cells
from mae_jax.data.cells import (
    NO_CLASS,
    NO_NUMBER,
    check_known,
    class_numbers,
    group_numbers,
    is_unknown,
    listed,
    marks,
    multi_hot,
    numbers_of,
    weights_of,
)
from mae_jax.data.classes import shortened
from mae_jax.data.compact import Texts, narrow, packed, unpacked
from mae_jax.data.fields import FIELDS
from mae_jax.data.files import number
from mae_jax.data.names import look_alikes, printable
from mae_jax.data.sources import Source
from mae_jax.spec import check_choice
from mae_jax.types import IGNORE, UserError

MISSING = ("refuse", "skip")
"""What to do with rows without a label, or without a file."""


class Columns(NamedTuple):
    """The columns that hold labels, and how to read them; see `sources.table.make`."""

    label: str = ""
    labels: str | Sequence[str] = ()
    value: str | Sequence[str] = ()
    weight: str = ""
    group: str = ""
    order: Sequence[str | int] = ()
    classes: int | str | Sequence[str | int] | None = None
    separator: str = "|"
    none: str | None = None
    missing_labels: str = "refuse"
    captions: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """The columns of 'value'."""
        return tuple(filter(None, _tuple(self.value)))

    @property
    def several(self) -> tuple[str, ...]:
        """The columns of 'labels'."""
        return tuple(filter(None, _tuple(self.labels)))

    @property
    def wanted(self) -> tuple[str, ...]:
        """All columns, each once."""
        names = (self.label, *self.several, *self.values, self.weight, self.group, self.captions)
        return tuple(dict.fromkeys(filter(None, names)))

    def check(self, where: str) -> None:
        """Raises UserError if arguments contradict each other."""
        check_choice(f"{where}: missing_labels", self.missing_labels, MISSING)
        if self.order and (self.classes is not None or not self.label):
            raise UserError(
                f"{where}: order names the classes of label in their order: leave out "
                + ("classes" if self.label else "order, or give label=...")
            )
        if self.classes is not None and not self.label and not isinstance(self.labels, str):
            raise UserError(
                f"{where}: classes are those of label=..., or of one column labels=...; leave "
                "classes out"
            )
        if self.classes is not None and self.label and isinstance(self.labels, str) and self.labels:
            raise UserError(f"{where}: classes cannot be those of both label and labels")


class Labeling:
    """Labels of N rows, in as few bytes as hold them.

    Args:
        where: the source, for messages.
        spec: which columns hold them.
        columns: name -> `pyarrow.Array` of N texts or lists of texts.
        rows: [N] int, numbers of the rows in the table, from 0.

    Raises:
        UserError: a cell is invalid; names its row, from 1.
    """

    def __init__(self, where: str, spec: Columns, columns: Mapping[str, Any], rows: np.ndarray):
        self.captions = columns[spec.captions] if spec.captions else None
        """`pyarrow.Array` of N captions or lists of them; None: there is no column of them."""
        self._arrays: dict[str, np.ndarray] = {}  # field -> [N, ...], as they are stored
        self.names: dict[str, tuple[str, ...]] = {}
        """Field -> names of its classes, or of its numbers."""
        self.notes: list[str] = []
        """Lines to report at the start of a run."""
        self.group_names: Sequence[str] = ()
        """Names of the groups 0, 1, ..., as in the column; empty without groups."""
        self.empty_classes: tuple[str, ...] = ()
        """Classes of 'label' without an example, unless they are ordered."""
        if spec.label:
            classes = listed(spec.order) if spec.order else spec.classes
            numbers, names = class_numbers(where, spec.label, columns[spec.label], classes, rows)
            self._arrays["label"], self.names["label"] = narrow(numbers), names
            self._look_at_classes(spec)
        if spec.several:
            self._set_several(where, spec, columns, rows)
        if spec.values:
            found = [numbers_of(where, name, columns[name], rows) for name in spec.values]
            check_known(where, spec.values, [np.isnan(column) for column in found], rows)
            values = np.stack(found, axis=1).astype(np.float32)  # [N, V]
            self._arrays["value"] = values[:, 0] if isinstance(spec.value, str) else values
            self.names["value"] = spec.values
            self.notes += _ranges(spec.values, values)
        if spec.weight:
            self._arrays["weight"] = weights_of(where, spec.weight, columns[spec.weight], rows)
        if spec.group:
            numbers, names = group_numbers(where, spec.group, columns[spec.group], rows)
            self._arrays["group"], self.group_names = narrow(numbers), Texts(names)
            self.notes.append(f"{number(len(self.group_names), 'group')} of {spec.group!r}")

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows at `indices` [n] of every field, see `fields.FIELDS`."""
        return {name: self._wide(name, array[indices]) for name, array in self._arrays.items()}

    def column(self, field: str) -> np.ndarray | None:
        """[N, ...] the values of a field of all rows; None: there is no column for it."""
        return self._wide(field, self._arrays[field]) if field in self._arrays else None

    @property
    def nbytes(self) -> int:
        """Bytes in memory beside the names."""
        count = sum(array.nbytes for array in self._arrays.values())
        return count + (self.group_names.nbytes if isinstance(self.group_names, Texts) else 0)

    @property
    def digest(self) -> str:
        """Hash of all labels and names."""
        digest = hashlib.sha256(repr(sorted(self.names.items())).encode())
        for name, array in sorted(self._arrays.items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        if isinstance(self.group_names, Texts):
            self.group_names.update(digest)
        return digest.hexdigest()

    def _wide(self, field: str, array: np.ndarray) -> np.ndarray:
        """Stored values in the type of batches."""
        if field == "labels":
            return unpacked(array, len(self.names["labels"]))
        return array.astype(FIELDS[field].dtype, copy=False)

    def _set_several(
        self, where: str, spec: Columns, columns: Mapping[str, Any], rows: np.ndarray
    ) -> None:
        if not isinstance(spec.labels, str):
            hot, names = marks(where, spec.several, columns, rows), spec.several
        else:
            hot, names = multi_hot(
                where,
                spec.labels,
                columns[spec.labels],
                rows,
                classes=spec.classes,
                separator=spec.separator,
                none=spec.none,
            )
        self._arrays["labels"], self.names["labels"] = packed(hot), names
        self.notes.append(_counted(hot, names))

    def _look_at_classes(self, spec: Columns) -> None:
        names = self.names["label"]
        self.notes += look_alikes(names)
        counts = np.bincount(self._arrays["label"], minlength=len(names))
        empty = tuple(name for name, count in zip(names, counts, strict=True) if not count)
        if spec.order and empty:  # an order may have classes that no example has
            self.notes.append(f"no example of the classes {shortened(list(map(printable, empty)))}")
        else:
            self.empty_classes = empty


class Labeled(Source):
    """Base class of sources whose labels are in the columns of a table.

    Args:
        labeling: of all examples.
    """

    def __init__(self, num_examples: int, labeling: Labeling):
        self.num_examples, self.labeling, self.names = num_examples, labeling, labeling.names
        self.empty_classes = labeling.empty_classes

    def labels(self) -> np.ndarray | None:
        """[N] int32, if there is a column of classes."""
        return self.column("label")

    def column(self, field: str) -> np.ndarray | None:
        """[N, ...], a field of labels of all examples, if there is a column for it."""
        return self.labeling.column(field)

    def weights(self) -> np.ndarray | None:
        """[N] float32, if there is a column of weights."""
        return self.column("weight")

    def captions(self) -> Iterable[Sequence[str]] | None:
        """The captions of each example, if there is a column of them."""
        return None if self.labeling.captions is None else cells(self.labeling.captions)

    def groups(self) -> np.ndarray | None:
        """[N] int32, if there is a column of groups."""
        return self.column("group")

    @property
    def group_names(self) -> Sequence[str]:
        """Names of the groups 0, 1, ..., as in the column."""
        return self.labeling.group_names

    def group(self, index: int) -> str:
        """Name of the example's group; without groups, of the example."""
        groups = self.labeling.read(np.array([index])).get("group")
        return self.name(index) if groups is None else self.group_names[int(groups[0])]


def labeled(
    where: str, spec: Columns, columns: Mapping[str, Any], rows: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Which rows have a label and all numbers: [N] bool, and lines to report about the others.

    Raises:
        UserError: a row has none, and such rows are not to be skipped.
    """
    names = (*filter(None, [spec.label]), *spec.values)
    unknown = [
        is_unknown(columns[name], NO_CLASS if name == spec.label else NO_NUMBER) for name in names
    ]
    if spec.missing_labels == "refuse":
        check_known(where, names, unknown, rows)
    known = ~np.any([np.zeros(len(rows), bool), *unknown], axis=0)
    count = int((~known).sum())
    return known, [f"left out {number(count, 'row')} without {' or '.join(names)}"] * (count > 0)


def _counted(hot: np.ndarray, names: Sequence[str]) -> str:
    """'3 classes of labels: a 5, b 0, c 2; 4 labels unknown'."""
    counts = [f"{printable(n)} {c}" for n, c in zip(names, (hot == 1).sum(axis=0), strict=True)]
    unknown = int((hot == IGNORE).sum())
    more = f"; {number(unknown, 'label')} unknown" if unknown else ""
    return f"{number(len(names), 'class', 'classes')} of labels: {shortened(counts)}{more}"


def _ranges(names: Sequence[str], values: np.ndarray) -> list[str]:
    """'value size: 1 to 9, mean 4.5' for each column of numbers."""
    return [
        f"value {name}: {column.min():.4g} to {column.max():.4g}, mean {column.mean():.4g}"
        for name, column in zip(names, values.T, strict=True)
        if len(column)
    ]


def _tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
