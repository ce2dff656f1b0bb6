"""Tables that map names and shapes of weights: rows of (our name, their names, form). Export reads
a row from left to right and import from right to left, so that both agree.

In a name, '{}' is a placeholder for the number of a block.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mae_jax.types import UserError

POSITIONS = "encoder/positions"
DECODER_POSITIONS = "decoder/positions"
"""Position tables: we compute fixed ones, other layouts store them."""

Arrays = Mapping[str, np.ndarray]


class Form(NamedTuple):
    """Conversions between our array and theirs."""

    ours: Callable[[np.ndarray], np.ndarray]
    """Their array -> ours."""
    theirs: Callable[[np.ndarray, "Shape"], np.ndarray] | None = None
    """Our array -> theirs; None: the layout is not written."""
    axes: int | None = None
    """Number of axes of their array; None: any."""


class Shape(NamedTuple):
    """Sizes that their arrays depend on: the sides of a patch in pixels, and channels."""

    patch: tuple[int, ...]
    channels: int


class Row(NamedTuple):
    """One array, or the same array of every block."""

    ours: str
    theirs: tuple[str, ...]
    """Several names are parts along the last axis of ours; '' is a missing part, zero in ours."""
    form: str | Form
    """A key of FORMS, or a form of the layout's own."""


class Mapped(NamedTuple):
    """A row of the table of names after an import or export."""

    ours: str
    theirs: str
    shape: tuple[int, ...]


def patch_kernel(kernel: np.ndarray, shape: Shape) -> np.ndarray:
    """Their kernel [D, C, *patch] from ours [prod(patch) * C, D], channels innermost."""
    rank = len(shape.patch)
    kernel = kernel.reshape(*shape.patch, shape.channels, -1)  # [*patch, C, D]
    return kernel.transpose(rank + 1, rank, *range(rank))


def flat_kernel(kernel: np.ndarray) -> np.ndarray:
    """Our kernel [prod(patch) * C, D] from theirs [D, C, *patch]."""
    return kernel.transpose(*range(2, kernel.ndim), 1, 0).reshape(-1, len(kernel))


FORMS = {
    "same": Form(lambda a: a, lambda a, shape: a),
    "dense": Form(lambda a: a.T, lambda a, shape: a.T, axes=2),
    "patch": Form(flat_kernel, patch_kernel, axes=4),
    "clip_patch": Form(flat_kernel, patch_kernel, axes=5),
    "table": Form(lambda a: a[0], lambda a, shape: a[None], axes=3),
}
FLOATS = ("float32", "float16", "bfloat16", "float64")


def dense(ours: str, *theirs: str) -> list[Row]:
    """Rows of a linear layer: our kernel and bias, their weight and bias."""
    names = lambda leaf: tuple(name and f"{name}.{leaf}" for name in theirs)
    return [
        Row(f"{ours}/kernel", names("weight"), "dense"),
        Row(f"{ours}/bias", names("bias"), "same"),
    ]


def norm(ours: str, theirs: str) -> list[Row]:
    """Rows of a LayerNorm: our scale and bias, their weight and bias."""
    return [
        Row(f"{ours}/scale", (f"{theirs}.weight",), "same"),
        Row(f"{ours}/bias", (f"{theirs}.bias",), "same"),
    ]


def to_ours(arrays: Arrays, rows: Iterable[Row]) -> tuple[dict[str, np.ndarray], list[Mapped]]:
    """Converts arrays to our names and forms, float32. Arrays that no row names are left out.

    Returns:
        The arrays by our names, and the table of names.

    Raises:
        UserError: an array has the wrong number of axes or type, or a part of it is missing.
    """
    params, table = {}, []
    for row in rows:
        for number in _numbers(row.theirs[0], arrays):
            names = [name.replace("{}", number) for name in row.theirs]
            ours = row.ours.replace("{}", number)
            params[ours] = _joined([_part(arrays, name, _form(row)) for name in names], names)
            table.append(Mapped(ours, " + ".join(filter(None, names)), params[ours].shape))
    return params, table


def known(arrays: Arrays, rows: Iterable[Row]) -> int:
    """Number of the arrays that rows name, those with another number of axes left out."""
    return sum(
        _form(row).axes in (None, arrays[name.replace("{}", number)].ndim)
        for row in rows
        for name in row.theirs
        if name
        for number in _numbers(name, arrays)
    )


def _numbers(pattern: str, arrays: Arrays) -> list[str]:
    """Values of '{}' with which the pattern is the name of an array; [''] for a name without it."""
    if "{}" not in pattern:
        return [""] if pattern in arrays else []
    regex = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
    return sorted((m[1] for m in map(regex.fullmatch, arrays) if m), key=int)


def _form(row: Row) -> Form:
    return FORMS[row.form] if isinstance(row.form, str) else row.form


def _part(arrays: Arrays, name: str, form: Form) -> np.ndarray | None:
    if not name:
        return None
    if name not in arrays:
        raise UserError(f"the weights lack {name}: the file is incomplete, or holds another model")
    if str(arrays[name].dtype) not in FLOATS or not arrays[name].size:
        what = arrays[name].dtype if arrays[name].size else f"empty, {list(arrays[name].shape)}"
        raise UserError(
            f"{name} is {what}: weights must not be empty, and must be {', '.join(FLOATS)} "
            "(quantized ones are not supported)"
        )
    array = np.asarray(arrays[name], np.float32)
    if form.axes not in (None, array.ndim):
        raise UserError(
            f"{name} has shape {list(array.shape)}, and {form.axes} axes are expected: the file "
            "holds another model"
        )
    if form is FORMS["table"] and len(array) != 1:
        raise UserError(
            f"{name} has shape {list(array.shape)}, and one table [1, L, D] is expected: the file "
            "holds another model"
        )
    return np.asarray(form.ours(array), order="C")  # ascontiguousarray makes vectors of numbers


def _joined(parts: list[np.ndarray | None], names: Sequence[str]) -> np.ndarray:
    parts = [np.zeros_like(parts[0]) if part is None else part for part in parts]
    if len({part.shape for part in parts}) > 1:
        raise UserError(f"{' and '.join(names)} differ in shape: the file holds another model")
    return np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def to_theirs(
    params: Arrays, rows: Iterable[Row], shape: Shape
) -> tuple[dict[str, np.ndarray], list[Mapped]]:
    """Converts arrays to their names and forms, the inverse of `to_ours`."""
    arrays, table = {}, []
    for row in rows:
        for number in _numbers(row.ours, params):
            ours = row.ours.replace("{}", number)
            names = [name.replace("{}", number) for name in row.theirs]
            several = len(names) > 1
            parts = np.split(params[ours], len(names), axis=-1) if several else [params[ours]]
            for name, part in zip(names, parts, strict=True):
                if name:
                    theirs = _form(row).theirs(part, shape)
                    arrays[name] = np.asarray(theirs, np.float32, order="C")
            table.append(Mapped(ours, " + ".join(filter(None, names)), params[ours].shape))
    return arrays, table


def grouped(table: Sequence[Mapped]) -> list[tuple[str, str, str]]:
    """The table as lines (theirs, ours, shape) to print: one line for all blocks, and one for the
    weight and bias of a layer.
    """
    blocks: dict[Mapped, int] = {}
    for row in table:
        number = re.search(r"/block_(\d+)/", row.ours)
        blank = rf"(?<=[._]){number[1]}(?=[./])" if number else r"(?!)"
        line = Mapped(re.sub(blank, "{}", row.ours), re.sub(blank, "{}", row.theirs), row.shape)
        blocks[line] = blocks.get(line, 0) + 1
    layers: dict[tuple, list[Mapped]] = {}
    for row in blocks:
        layers.setdefault((row.ours.rpartition("/")[0] or row, _layer(row.theirs)), []).append(row)
    return [
        (
            _braced([name for row in rows for name in row.theirs.split(" + ")]),
            _braced([row.ours for row in rows]),
            " ".join("x".join(map(str, row.shape)) for row in rows)
            + (f" ({blocks[rows[0]]} blocks)" if "{}" in rows[0].ours else ""),
        )
        for rows in layers.values()
    ]


def _layer(theirs: str) -> str:
    return " + ".join(name.rpartition(".")[0] for name in theirs.split(" + "))


def _braced(names: Sequence[str]) -> str:
    """'a.b.weight', 'a.c.weight' to 'a.{b,c}.weight'."""
    split = [re.split(r"([./])", name) for name in names]
    if len({len(parts) for parts in split}) > 1:
        return " + ".join(names)
    columns = [list(dict.fromkeys(column)) for column in zip(*split, strict=True)]
    join = lambda parts: parts[0] if len(parts) == 1 else "{" + ",".join(parts) + "}"
    return "".join(map(join, columns))
