"""Prepared data sets of TensorFlow Datasets (TFDS) on this disk: found, opened, and what
`mae-jax prepare` has measured of them.
"""

import difflib
import importlib.util
import json
import re
from collections.abc import Collection
from pathlib import Path

from google.protobuf.json_format import ParseError

from mae_jax.data.images import Window
from mae_jax.data.sources import Statistics
from mae_jax.data.statistics import usable
from mae_jax.types import UserError

STATISTICS = "statistics.json"
"""File that `mae-jax prepare` writes: split -> see `Tally.summary`."""
_INFO = "dataset_info.json"


def statistics_of(info, split: str, channels: int, window: Window | None) -> Statistics | None:
    """Mean and deviation of a split, or of the split that it is a part of.

    None if they were not measured, or of other pixels: of another number of channels, without the
    window, or of another one of several splits.

    Args:
        info: of a TFDS builder.
        split: as TFDS writes it, e.g. 'train[:90%]'.
        channels, window: to which images are decoded.

    Raises:
        UserError: the file with them is damaged.
    """
    path = Path(info.data_dir, STATISTICS)
    splits = {part.strip() for part in re.sub(r"\[.*?\]", "", split).split("+")}
    if not path.exists() or window is not None or len(splits) > 1:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        measured = found.get(splits.pop())
        if measured is None or len(measured["mean"]) != channels:
            return None
        return Statistics(tuple(map(float, measured["mean"])), usable(measured["std"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read {path} ({line(error)}): prepare the set again, or remove this file"
        ) from error


def open_builder(path_or_name: str, data_dir: str | None):
    """The TFDS builder of a prepared set; imports none of the code that prepares sets.

    Args:
        path_or_name: the folder of the set, or its name.
        data_dir: where TFDS keeps sets with a name; None: its default.

    Raises:
        UserError: there is no such set, or it cannot be opened.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise UserError("tfds needs TensorFlow Datasets: pip install tensorflow-datasets")
    for text in (path_or_name, data_dir or ""):
        if "://" in text:
            raise UserError(f"{text!r} is not on a disk: copy or mount it, and give that path")
    import tensorflow_datasets as tfds

    folder = Path(path_or_name).expanduser()
    try:
        if (folder / _INFO).is_file():
            return tfds.builder_from_directory(folder)
        if folder.is_dir() and data_dir is None:
            raise UserError(f"{folder} holds no {_INFO}: give the folder that does{_below(folder)}")
        return tfds.core.read_only_builder.builder_from_files(path_or_name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        root = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
        known = tfds.list_builders(with_community_datasets=False)
        raise UserError(_not_found(path_or_name, root, known)) from error
    except (ValueError, OSError, ParseError) as error:
        raise UserError(
            f"cannot open the data set {path_or_name!r} ({line(error)}): give a folder that holds "
            f"a {_INFO}, or a name, e.g. 'imagenet2012:5.1.0'"
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


def line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).split("\n")[0]
