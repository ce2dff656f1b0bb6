"""Cells of a table's columns as arrays: classes, several classes, numbers, weights and groups.

The columns are `pyarrow.Array`s of texts, see `table_files`. The order of classes that no argument
names is that of whole numbers if all are whole numbers (2 before 10), and of texts otherwise.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mae_jax.data.class_ids import class_names
from mae_jax.errors import nearest
from mae_jax.types import IGNORE, UserError

MAX_CLASSES = 65535
WORDS = {"0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1, "-1": IGNORE, "nan": IGNORE}
"""Cell of a column that states whether a row has a class -> its value."""
NO_CLASS = ("nan",)
"""What other programs write for a class that is unknown, in any case."""
NO_NUMBER = (*NO_CLASS, "na", "n/a", "null", "none", "-")
"""The same for a number."""
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0+)?")
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?", re.I)


def class_numbers(
    where: str, name: str, column: Any, classes: Any, rows: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Classes of a column of texts: [N] int32, and the names of the classes.

    Args:
        where: the source, for messages.
        name: of the column.
        column: `pyarrow.Array` of N texts, none of them null.
        classes: as for `class_ids.class_names`, also of a column of their numbers from 0; None:
            those of the column.
        rows: [N] int, numbers of the rows in the table.

    Raises:
        UserError: a class is not listed in `classes`.
    """
    _check_flat(where, name, column)
    encoded = column.dictionary_encode()
    found = _canonical(encoded.dictionary.to_pylist())
    if classes is None:
        _check_no_numbers(where, name, found)
    names = _named(where, found, classes)
    places = _places(found, names)
    table = np.array([places.get(text, -1) for text in found], np.int32)
    numbers = table[np.asarray(encoded.indices)] if len(found) else np.zeros(0, np.int32)
    _check_classes(where, name, numbers, lambda i: column[i].as_py(), names, rows)
    return numbers, names


def numbers_of(where: str, name: str, column: Any, rows: np.ndarray) -> np.ndarray:
    """The numbers [N] float64 in a column of texts; NaN where there is none. A comma is a decimal
    point.

    Raises:
        UserError: a text is no number, or not finite in float32.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    _check_flat(where, name, column)
    try:
        numbers = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        unknown = pc.is_in(pc.ascii_lower(column), value_set=pa.array(NO_NUMBER, column.type))
        plain = pc.replace_substring(pc.if_else(unknown, None, column), ",", ".")
        numbers = np.array([_number(text) for text in plain.to_pylist()])
    wrong = np.flatnonzero(np.abs(np.nan_to_num(numbers, posinf=np.inf)) > np.finfo("f4").max)
    if len(wrong):
        raise UserError(
            f"{where}: {name!r} of row {rows[wrong[0]] + 1} is {column[wrong[0]].as_py()!r}: write "
            "a finite number, or leave it empty if it is unknown"
        )
    return numbers


def weights_of(where: str, name: str, column: Any, rows: np.ndarray) -> np.ndarray:
    """Weights [N] float32 in a column of texts.

    Raises:
        UserError: one is missing, negative or no number, or all are 0.
    """
    weights = numbers_of(where, name, column, rows)
    wrong = np.flatnonzero(~(weights >= 0))
    if len(wrong) or not weights.any():
        which = f"row {rows[wrong[0]] + 1} is {column[wrong[0]].as_py()!r}" if len(wrong) else ""
        raise UserError(
            f"{where}: {name!r} of {which or 'all rows is 0'}: weights are numbers, 0 or more, and "
            "not all 0"
        )
    return weights.astype(np.float32)


def marks(
    where: str, names: Sequence[str], columns: Mapping[str, Any], rows: np.ndarray
) -> np.ndarray:
    """'labels' [N, K] uint8 from a column of `WORDS` for each class; an empty cell is IGNORE.

    Raises:
        UserError: a cell is another word.
    """
    hot = np.empty((len(rows), len(names)), np.uint8)
    for place, name in enumerate(names):
        _check_flat(where, name, columns[name])
        encoded = columns[name].dictionary_encode()
        found = [_canonical([text])[0].lower() for text in encoded.dictionary.to_pylist()]
        table = np.array([*(WORDS.get(text, -1) for text in found), IGNORE])
        values = table[np.asarray(encoded.indices.fill_null(len(found)))]
        if len(wrong := np.flatnonzero(values < 0)):
            raise UserError(
                f"{where}: {name!r} of row {rows[wrong[0]] + 1} is "
                f"{columns[name][wrong[0]].as_py()!r}: write 1 or 0, or leave it empty if it is "
                "unknown; one column of names is labels='NAME'"
            )
        hot[:, place] = values
    return hot


def multi_hot(
    where: str,
    name: str,
    column: Any,
    rows: np.ndarray,
    *,
    classes: Any,
    separator: str,
    none: str | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """'labels' [N, K] uint8 from one column of lists or of texts, and the names of the K classes;
    an empty cell is IGNORE for all classes.

    Args:
        classes: as for `class_numbers`.
        separator: between the names in a text.
        none: a name that means none of the classes; '': an empty cell does.

    Raises:
        UserError: a class is not listed in `classes`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_large_list(column.type):
        if none == "":  # an empty cell has no class
            column = column.fill_null("")
        column = pc.split_pattern(column, separator)
    unknown = np.asarray(column.is_null())
    lengths = np.asarray(pc.list_value_length(column).fill_null(0), np.int64)
    items = pc.utf8_trim_whitespace(pc.cast(pc.list_flatten(column), pa.large_string()))
    left_out = pa.array(["", *([none] if none else [])], pa.large_string())
    use = ~np.asarray(pc.is_in(items, value_set=left_out)) & np.asarray(items.is_valid())
    examples = np.repeat(np.arange(len(rows)), lengths)[use]  # [M], the row of each name
    items = items.filter(pa.array(use))
    encoded = items.dictionary_encode()
    found = _canonical(encoded.dictionary.to_pylist())
    names = _named(where, found, classes)
    places = _places(found, names)
    table = np.array([places.get(text, -1) for text in found], np.int64)
    numbers = table[np.asarray(encoded.indices)] if found else np.zeros(0, np.int64)
    _check_classes(where, name, numbers, lambda i: items[i].as_py(), names, rows[examples])
    hot = np.zeros((len(rows), len(names)), np.uint8)
    hot[examples, numbers] = 1
    hot[unknown] = IGNORE
    return hot, names


def _named(where: str, found: Sequence[str], classes: Any) -> tuple[str, ...]:
    """The names of the classes: those given, or those found in their order."""
    if classes is not None:
        return class_names(where, listed(classes), most=MAX_CLASSES)
    whole = all(map(_WHOLE.fullmatch, found))
    names = tuple(sorted({*found}, key=int if whole else None))
    return class_names(where, names, most=MAX_CLASSES)


def _places(found: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Text of a cell -> class: its name, or its number if no cell holds a name."""
    by_name = {text: place for place, text in enumerate(names)}
    if {*found} & by_name.keys() or not all(map(_WHOLE.fullmatch, found)):
        return by_name
    return {str(place): place for place in range(len(names))}


def listed(classes: Any) -> Any:
    """Classes with numbers as texts, if they are listed."""
    return classes if isinstance(classes, int | str) else tuple(map(str, classes))


def _canonical(found: Sequence[str]) -> list[str]:
    """Texts of whole numbers without decimals if all are whole numbers: '1.0' to '1'."""
    whole = [_WHOLE.fullmatch(text) for text in found]
    return [match[1] for match in whole] if all(whole) else list(found)


def _check_no_numbers(where: str, name: str, found: Sequence[str]) -> None:
    whole = all(map(_WHOLE.fullmatch, found))
    if found and not whole and all(map(_NUMBER.fullmatch, found)):
        example = next(text for text in found if not _WHOLE.fullmatch(text))
        raise UserError(
            f"{where}: {name!r} holds numbers such as {example}, not classes: give value={name!r} "
            f"in place of label={name!r}, or list the classes"
        )


def _check_classes(where: str, name: str, numbers: np.ndarray, text, names, rows) -> None:
    """Raises UserError if one of the numbers is -1, a class that is not listed."""
    if len(wrong := np.flatnonzero(numbers < 0)):
        cell = text(int(wrong[0]))
        raise UserError(
            f"{where}: {name!r} of row {rows[wrong[0]] + 1} is {cell!r}, which is none of the "
            f"classes{nearest(cell, names)}"
        )


def _check_flat(where: str, name: str, column: Any) -> None:
    import pyarrow as pa

    if pa.types.is_large_list(column.type):
        raise UserError(
            f"{where}: {name!r} holds lists: only labels={name!r} reads lists, of several classes"
        )


def check_known(
    where: str, names: Sequence[str], unknown: Sequence[np.ndarray], rows: np.ndarray
) -> None:
    """Raises UserError if a cell is unknown; names the row of the first.

    Args:
        names: of the columns.
        unknown: [N] bool for each of them.
        rows: [N] int, numbers of the rows in the table.
    """
    for name, missing in zip(names, unknown, strict=True):
        if count := int(missing.sum()):
            several = f" (and of {count - 1} more)" if count > 1 else ""
            raise UserError(
                f"{where}: {name!r} of row {rows[np.argmax(missing)] + 1}{several} is empty or NaN:"
                " fill it in, or leave such rows out with missing_labels='skip'"
            )


def is_unknown(column: Any, words: Sequence[str]) -> np.ndarray:
    """[N] bool: whether a cell is null or one of these words, in any case."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_large_list(column.type):
        return np.asarray(column.is_null())
    is_word = pc.is_in(pc.ascii_lower(column), value_set=pa.array(words, column.type))
    return np.asarray(pc.or_(column.is_null(), is_word))


def group_numbers(where: str, name: str, column: Any, rows: np.ndarray) -> tuple[np.ndarray, Any]:
    """Numbers [N] int32 of a column's different texts, and the texts."""
    _check_flat(where, name, column)
    check_known(where, [name], [np.asarray(column.is_null())], rows)
    encoded = column.dictionary_encode()
    return np.asarray(encoded.indices, np.int32), encoded.dictionary


def _number(text: str | None) -> float:
    """A number; infinite if the text is none, NaN if there is no text."""
    try:
        return np.nan if text is None else float(text)
    except ValueError:
        return np.inf
