"""Finds data sets prepared by TensorFlow Datasets (TFDS), by folder or by name."""

import difflib
import importlib.util
from collections.abc import Collection
from pathlib import Path

from google.protobuf.json_format import ParseError

from mae_jax.data.files import expanded
from mae_jax.types import UserError

_INFO = "dataset_info.json"


def open_builder(path_or_name: str, data_dir: str | None):
    """The read-only TFDS builder of a prepared set.

    Args:
        path_or_name: path of the set's folder, or its name in TFDS.
        data_dir: parent folder of named sets; None for the default of TFDS.

    Raises:
        UserError: there is no such set; the message lists the sets there are.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise UserError("tfds needs TensorFlow Datasets: pip install tensorflow-datasets")
    for text in (path_or_name, data_dir or ""):
        if "://" in text:
            raise UserError(f"{text!r} is not a local path: copy or mount it, and give that path")
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
    """The message for a missing set; `known` are the names of sets that TFDS can prepare."""
    first = name.split(":")[0].split("/")[0]
    close = difflib.get_close_matches(first, known, n=1)
    if first in known:
        make_it = f"tfds.builder({name!r}, data_dir={str(root)!r}, file_format='array_record')"
        way = f"; import tensorflow_datasets as tfds; {make_it}.download_and_prepare() prepares it"
    else:
        way = f", nor a folder of that name{f'; did you mean {close[0]!r}?' if close else ''}"
    return f"there is no prepared {name!r} in {root}{_below(root)}{way}"


def _below(root: Path) -> str:
    """The sets prepared below a folder, in brackets; empty if there are none."""
    infos = [path for depth in (1, 2, 3) for path in root.glob("*/" * depth + _INFO)]
    names = sorted(path.parent.relative_to(root).as_posix() for path in infos)
    return f" (there is {', '.join(names)})" if names else ""


def first_line(error: Exception) -> str:
    """The first line of an error's message, since messages of TFDS may have many."""
    return str(error).split("\n")[0]
