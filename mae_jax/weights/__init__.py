"""Weights in and out: the layouts of the official MAE, timm and Hugging Face, and our own runs.

`names.py` says what others call our arrays, and `layout.py` reads these tables in both directions;
`files.py` opens files; `infer.py` tells which `model.py` they are of; `runs.py` takes weights out
of runs and makes folders that our commands use like runs; `export.py` writes what others read.
"""

import re
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from mae_jax.spec import call, maker
from mae_jax.types import UserError
from mae_jax.weights.export import LAYOUTS, write
from mae_jax.weights.files import SUFFIXES, Found, from_hub, open_weights
from mae_jax.weights.infer import model_of
from mae_jax.weights.layout import Mapped, known, to_ours
from mae_jax.weights.model import Model, Options, anywhere, arguments
from mae_jax.weights.names import DECODER_POSITIONS, POSITIONS, READABLE
from mae_jax.weights.runs import image_of, is_run, read_run, read_state, write_run

__all__ = [
    "LAYOUTS",
    "SUFFIXES",
    "Model",
    "Options",
    "anywhere",
    "arguments",
    "from_hub",
    "image_of",
    "is_run",
    "read",
    "read_state",
    "write",
    "write_run",
]

LEFT_OVER = "(left over)"


def read(source: str | Path, options: Options | None = None) -> tuple[Model, list[Mapped]]:
    """Weights from wherever they are.

    Args:
        source: a workdir, a file (.safetensors, .pth), a folder of Hugging Face, or hf://org/name.
        options: what the weights do not say.

    Returns:
        The model, and what became what: 'theirs' is '(created)' for a parameter that was allowed to
        be missing, 'ours' is LEFT_OVER for what was not used; what was not wanted is not in it.

    Raises:
        UserError: not weights, of another model, incomplete, with more in them than is known, or
            with values that are not finite.
    """
    options = options or Options()
    if is_run(source):
        return read_run(Path(source).expanduser()), []
    found = open_weights(str(source))
    params, table = _mapped(found, options)
    if options.encoder_only:
        params = {path: array for path, array in params.items() if path.startswith("encoder/")}
        table = [row for row in table if row.ours in params or row.ours == LEFT_OVER]
    kernel = next(found.arrays[row.theirs] for row in table if row.ours == "encoder/embed/kernel")
    if kernel.shape[2] != kernel.shape[3]:
        raise UserError(f"{found.name} has patches that are not square: {list(kernel.shape[2:])}")
    try:
        model = model_of(found, params, (kernel.shape[2], kernel.shape[1]), options)
    except KeyError as error:
        raise UserError(f"{found.name} lacks {error.args[0]}: it is not whole") from error
    return _completed(model, table, found.name, options)


def _mapped(found: Found, options: Options) -> tuple[dict[str, np.ndarray], list[Mapped]]:
    """The arrays in our names, by the layout that knows most of them."""
    layouts = [rows for variants in READABLE.values() for rows in variants]
    rows = max(layouts, key=lambda rows: known(found.arrays, rows))
    params, table = to_ours(found.arrays, rows)
    if not {"encoder/cls_token", "encoder/embed/kernel"} <= params.keys():
        first = ", ".join(sorted(found.arrays)[:3])
        raise UserError(
            f"{found.name} is of another model: its arrays ({first}, ...) are in no layout of "
            f"{', '.join(READABLE)}"
        )
    used = {name for row in table for name in row.theirs.split(" + ")}
    left = [name for name in found.arrays if name not in used]
    _refuse(left, options, f"{found.name} has more than is known here")
    shapes = {name: found.arrays[name].shape for name in left}
    return params, [*table, *(Mapped(LEFT_OVER, name, shapes[name]) for name in left)]


def _refuse(names: list[str], options: Options, what: str) -> None:
    """Raises UserError unless each name is allowed."""
    try:
        names = [n for n in names if not any(re.search(pattern, n) for pattern in options.allow)]
    except re.error as error:
        raise UserError(f"--allow {options.allow}: no regular expressions ({error})") from error
    if names:
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise UserError(f"{what}: {shown}; mae-jax weights import --allow REGEX lets names pass")


def _completed(model: Model, table: list[Mapped], name: str, options: Options):
    """The model, its parameters checked against those of the network; what may be missing is made
    as for a fresh one.
    """
    args = {key: value for key, value in model.args.items() if value != ()}
    method = call(name, maker(_module(model.method)), **args)
    batch = {
        "image": jax.ShapeDtypeStruct((1, *model.image), np.uint8),
        "label": jax.ShapeDtypeStruct((1,), np.int32),
    }
    init = lambda key, batch: method.init(key, batch)[0]
    shapes = traverse_util.flatten_dict(jax.eval_shape(init, jax.random.key(0), batch), sep="/")
    for path, array in model.params.items():
        if path not in shapes:
            raise UserError(f"{name} is of another model: {path} has no place in {model.args}")
        if array.shape != shapes[path].shape:
            raise UserError(
                f"{name} is of another model: {path} is {list(array.shape)} there and "
                f"{list(shapes[path].shape)} in {model.args['encoder']}"
            )
    missing = [path for path in shapes if path not in model.params]
    _refuse(missing, options, f"{name} lacks what {model.args['encoder']} needs")
    if missing:
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), batch)
        fresh = traverse_util.flatten_dict(init(jax.random.key(0), zeros), sep="/")
        model.params.update({path: np.asarray(fresh[path]) for path in missing})
        table = table + [Mapped(path, "(created)", shapes[path].shape) for path in missing]
    dropped = {POSITIONS: model.params, DECODER_POSITIONS: {}}
    table = [
        row._replace(ours="(computed here: sine-cosine)")
        if row.ours in dropped and row.ours not in dropped[row.ours]
        else row._replace(ours="head_0" + row.ours[4:])
        if row.ours.startswith("head/") and "head_0" + row.ours[4:] in model.params
        else row
        for row in table
    ]
    return model, table


def _module(method: str) -> str:
    return method if method.startswith("tasks.") else f"methods.{method}"
