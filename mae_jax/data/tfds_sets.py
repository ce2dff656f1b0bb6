"""Finding a data set that TensorFlow Datasets (TFDS) has prepared, by its folder or its name."""

import difflib
import importlib.util
from collections.abc import Collection
from pathlib import Path

from google.protobuf.json_format import ParseError

from mae_jax.data.files import expanded
from mae_jax.types import UserError

_INFO = "dataset_info.json"


def open_builder(path_or_name: str, data_dir: str | None):
    """The TFDS builder of a prepared set; imports none of the code that prepares sets.

    Args:
        path_or_name: of a folder, or as TFDS names its sets.
        data_dir: where TFDS keeps sets with a name; None for its own default.

    Raises:
        UserError: there is none; says what there is.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise UserError("tfds needs TensorFlow Datasets: pip install tensorflow-datasets")
    for text in (path_or_name, data_dir or ""):
        if "://" in text:
            raise UserError(f"{text!r} is not on a disk: copy or mount it, and give that path")
    import tensorflow_datasets as tfds

    folder = expanded(path_or_name)
    try:
        if (folder / _INFO).is_file():
            return tfds.builder_from_directory(folder)
        if folder.is_dir() and data_dir is None:
            raise UserError(f"{folder} holds no {_INFO}: give the folder that does{_below(folder)}")
        return tfds.core.read_only_builder.builder_from_files(path_or_name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        root = expanded(data_dir or tfds.core.constants.DATA_DIR)
        known = tfds.list_builders(with_community_datasets=False)
        raise UserError(_not_found(path_or_name, root, known)) from error
    except (ValueError, OSError, ParseError) as error:
        raise UserError(
            f"cannot open the data set {path_or_name!r} ({first_line(error)}): give a folder that "
            f"holds a {_INFO}, or a name, e.g. 'imagenet2012:5.1.0'"
        ) from error


def _not_found(name: str, root: Path, known: Collection[str]) -> str:
    """Why there is no set of this name, and what to do; `known` are those that TFDS can prepare."""
    first = name.split(":")[0].split("/")[0]
    close = difflib.get_close_matches(first, known, n=1)
    if first in known:
        make_it = f"tfds.builder({name!r}, data_dir={str(root)!r}, file_format='array_record')"
        way = f"; import tensorflow_datasets as tfds; {make_it}.download_and_prepare() prepares it"
    else:
        way = f", nor a folder of that name{f'; did you mean {close[0]!r}?' if close else ''}"
    return f"there is no prepared {name!r} in {root}{_below(root)}{way}"


def _below(root: Path) -> str:
    """What is prepared in a folder, if anything, in brackets."""
    found = [path for depth in (1, 2, 3) for path in root.glob("*/" * depth + _INFO)]
    names = sorted(path.parent.relative_to(root).as_posix() for path in found)
    return f" (there is {', '.join(names)})" if names else ""


def first_line(error: Exception) -> str:
    """Of the message of an error of TFDS, which may have many."""
    return str(error).split("\n")[0]
