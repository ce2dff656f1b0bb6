"""Import and export of weights: the layouts of other packages in `layouts/`, and our runs.

`files.py` reads files: `kinds.py` detects their type, `parts.py` selects the arrays of the model.
`rewrite.py` and `layout.py`, with the tables of `layouts/`, convert these to our names. `infer.py`
infers the `Model` from shapes and the accompanying configs (`described.py`, `processor.py`),
`heads.py` and `positions.py`. `runs.py` reads the weights of runs and writes folders that all
commands use like runs. `export.py` writes the layouts of others, through `saving.py`.
"""

import logging
import re
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from mae_jax.methods import make_method
from mae_jax.types import UserError
from mae_jax.weights.export import write
from mae_jax.weights.files import open_weights
from mae_jax.weights.hub import from_hub
from mae_jax.weights.infer import model_of
from mae_jax.weights.kinds import SUFFIXES
from mae_jax.weights.layout import DECODER_POSITIONS, POSITIONS, Mapped, Shape, known, to_ours
from mae_jax.weights.layouts import Layout, tables
from mae_jax.weights.model import Found, Model, Options, portable_args
from mae_jax.weights.parts import other_model
from mae_jax.weights.rewrite import Rewritten, described_names, rewritten
from mae_jax.weights.runs import image_of, is_run, read_run, read_state, transform_of, write_run
from mae_jax.weights.saving import check_new, fresh_folder

__all__ = [
    "SUFFIXES",
    "Model",
    "Options",
    "portable_args",
    "check_new",
    "folder_of",
    "fresh_folder",
    "from_hub",
    "image_of",
    "is_run",
    "read",
    "read_state",
    "transform_of",
    "write",
    "write_run",
]

logger = logging.getLogger(__name__)


def folder_of(source: str | Path) -> Path:
    """The local path of weights; hf://org/name is downloaded unless it is in the cache."""
    return from_hub(source) if str(source).startswith("hf://") else Path(source).expanduser()


LEFT_OVER = "(left over)"
LETS_PASS = "mae-jax weights import --allow REGEX accepts such names"
TABLES = (POSITIONS, DECODER_POSITIONS)


def read(source: str | Path, options: Options | None = None) -> tuple[Model, list[Mapped]]:
    """Reads weights from a run, a file, a folder or the Hugging Face hub.

    Args:
        source: a workdir, a file (.safetensors, .pth), a folder of Hugging Face, or hf://org/name.
        options: facts that the file does not contain, and what to read.

    Returns:
        The model, and the table of names. In it 'theirs' is '(created)' for a parameter that was
        allowed to be missing, and 'ours' is LEFT_OVER for an array that was not used.

    Raises:
        UserError: no weights, another model, missing or unknown arrays, or values that are not
            finite.
    """
    options = options or Options()
    if is_run(local := folder_of(source)):
        return read_run(local), []
    found = open_weights(str(source), options.key, options.layout)
    changed = rewritten(found.arrays, found.name)
    if any(what.startswith("(folded") for what in changed.used.values()):
        logger.warning(
            "the LayerScale of %s is folded into the preceding layers: features are the same, but "
            "training has no separate factors",
            found.name,
        )
    layout, params, table = _mapped(found, changed, options)
    if options.encoder_only:
        params = {path: array for path, array in params.items() if path.startswith("encoder/")}
        table = [row for row in table if row.ours in params or row.ours.startswith("(")]
    names = {row.ours: row.theirs for row in table}
    kernel = changed.arrays[names["encoder/embed/kernel"]]
    sides = kernel.shape[2:]
    if sides[-2] != sides[-1]:
        raise UserError(
            f"{found.name} has patches of {' x '.join(map(str, sides))}: only square ones are "
            "supported"
        )
    dtypes = {path: found.arrays[names[path]].dtype for path in TABLES if path in names}
    shape = Shape(sides, kernel.shape[1])
    try:
        if layout.infer is None:
            model = model_of(found, params, shape, options, dtypes)
        else:
            model = layout.infer(found, params, shape, options)
    except KeyError as error:
        raise UserError(f"{found.name} lacks {error.args[0]}: it is incomplete") from error
    return _completed(model, table, found.name, options)


def _mapped(
    found: Found, changed: Rewritten, options: Options
) -> tuple[Layout, dict[str, np.ndarray], list[Mapped]]:
    """The layout that matches most of the arrays, and the arrays in our names."""
    arrays = changed.arrays
    layout, rows = max(tables(options.layout), key=lambda pair: known(arrays, pair[1]))
    params, table = to_ours(arrays, rows)
    if "encoder/embed/kernel" not in params:
        raise other_model(found.name, list(found.arrays), options.layout)
    if layout.class_token and "encoder/cls_token" not in params:
        raise UserError(
            f"{found.name} holds another model: it has no class token, which these layouts need "
            "(I-JEPA, SigLIP and timm's gap models have none)"
        )
    used = {name for row in table for name in row.theirs.split(" + ")}
    left = [name for name in arrays if name not in used]
    unused = [name for name in left if layout.unused and re.fullmatch(layout.unused, name)]
    left = [name for name in left if name not in unused]
    allow = f"; {LETS_PASS}"
    if found.beside and not left:
        allow = f"; --key {found.key} leaves them out{allow}"
    what = f"{found.name} has unknown arrays"
    _refuse([*left, *found.beside], options, what, allow, theirs=True)
    shapes = {name: arrays[name].shape for name in (*left, *unused)}
    shapes |= {name: found.arrays[name].shape for name in changed.used}
    rest = dict.fromkeys([*left, *found.beside], LEFT_OVER) | changed.used
    rest |= dict.fromkeys(unused, "(not used: no weights)")
    return layout, params, [*table, *(Mapped(w, n, shapes.get(n, ())) for n, w in rest.items())]


def _refuse(names: list[str], options: Options, what: str, way: str, *, theirs: bool) -> None:
    """Raises UserError unless each name is allowed."""
    try:
        names = [n for n in names if not any(re.search(pattern, n) for pattern in options.allow)]
    except re.error as error:
        raise UserError(f"--allow {options.allow}: no regular expression ({error})") from error
    if names:
        raise UserError(f"{what}: {described_names(names, theirs=theirs)}{way}")


def _completed(model: Model, table: list[Mapped], name: str, options: Options):
    """Checks the parameters against those of the network, and initializes those that may be missing
    as a new model does.
    """
    args = {key: value for key, value in model.args.items() if value != ()}
    method = make_method(name=model.method, args=args)
    batch = method.example(model.image)
    init = lambda key, batch: method.init(key, batch)[0]
    shapes = traverse_util.flatten_dict(jax.eval_shape(init, jax.random.key(0), batch), sep="/")
    for path, array in model.params.items():
        if path not in shapes:
            raise UserError(f"{name} holds another model: {model.args} has no parameter {path}")
        if array.shape != shapes[path].shape:
            raise UserError(
                f"{name} holds another model: {path} has shape {list(array.shape)}, and "
                f"{list(shapes[path].shape)} in {model.args['encoder']}"
            )
    missing = [path for path in shapes if path not in model.params]
    what = f"{name} lacks parameters of {model.args['encoder']}"
    _refuse(missing, options, what, f"; {LETS_PASS}", theirs=False)
    if missing:
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), batch)
        initial = traverse_util.flatten_dict(init(jax.random.key(0), zeros), sep="/")
        model.params.update({path: np.asarray(initial[path]) for path in missing})
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
