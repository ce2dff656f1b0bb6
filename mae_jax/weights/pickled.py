"""Reads pickles of NumPy arrays, such as detectron2's model zoo (.pkl). Only the functions that
rebuild arrays are called, so that a pickle cannot run other code.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from mae_jax.types import UserError
from mae_jax.weights.hub import line_of
from mae_jax.weights.parts import groups_of

ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
}
"""Modules and names that a pickle may refer to."""


class _Forbidden(Exception):
    """A reference to anything else."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A function or class by name, if it is one of `ALLOWED`."""
        if (module, name) not in ALLOWED:
            raise _Forbidden(f"{module}.{name}")
        return super().find_class(module, name)


def read_pickle(path: Path) -> dict[str, dict[str, Any]]:
    """The arrays of a file, grouped by the path of their dictionary (see `groups_of`).

    Raises:
        UserError: the file is damaged, holds no arrays, or could run code.
    """
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
    except _Forbidden as error:
        raise UserError(
            f"{path} is refused: it holds more than arrays ({error}) and could run code when "
            "loaded; ask its author for .safetensors, or if you trust it save only the weights, as "
            "NumPy arrays in a dictionary"
        ) from error
    except Exception as error:  # of many types, for damaged files too
        raise UserError(f"{path} is damaged, or no pickle of arrays ({line_of(error)})") from error
    numeric = lambda value: isinstance(value, np.ndarray) and value.dtype != object
    groups = groups_of(content, numeric)
    if not groups:
        raise UserError(f"{path} holds no named weights, but {type(content).__name__}")
    return groups
