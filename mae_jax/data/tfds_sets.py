"""Finds data sets prepared by TensorFlow Datasets (TFDS), by folder or by name; their features."""

import difflib
import importlib.util
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
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


def features_of(info, **chosen: str) -> dict[str, str]:
    """Field -> path of its feature.

    Args:
        info: of the set.
        chosen: 'image', 'label', 'segmentation', 'box', 'box_label' and 'crowd' -> path of the
            feature; empty for none.

    Raises:
        UserError: there is no such feature, or it has another type.
    """
    from tensorflow_datasets import features as kinds

    paths, top = paths_of(info.features), dict(info.features.items())
    single = {path: f for path, f in paths.items() if f is top.get(path)}
    images = {path for path, f in single.items() if isinstance(f, kinds.Image)}
    images -= {path for path in images if single[path].np_dtype == np.float32}
    boxes = {path for path, f in paths.items() if isinstance(f, kinds.BBoxFeature)}
    # Releases of TFDS without bbox_format have REL_YXYX only.
    form = lambda feature: str(getattr(feature, "bbox_format", None))
    classes = {path for path, f in paths.items() if isinstance(f, kinds.ClassLabel)}
    fitting = {
        "image": images,
        "label": classes & {*single},
        "segmentation": images,
        "box": {path for path in boxes if form(paths[path]) in ("None", "BBoxFormat.REL_YXYX")},
        "box_label": classes - {*single},
        "crowd": {path for path, f in paths.items() if f.np_dtype == np.bool_} - {*single},
    }
    if chosen["label"] == "label" and "label" not in fitting["label"]:
        del chosen["label"]
    for field, path in chosen.items():
        if path and path not in fitting[field]:
            raise UserError(
                f"{info.full_name} has no {field} {path!r}: choose {field}="
                f"{' or '.join(sorted(fitting[field])) or '(it has none)'}; its features are "
                f"{', '.join(paths)}"
            )
    return {field: path for field, path in chosen.items() if path}


def paths_of(features) -> dict[str, Any]:
    """Path -> feature, nested ones included, e.g. 'objects/bbox' in a sequence."""
    return dict(_paths(features))


def _paths(features, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, feature in features.items():
        inner = getattr(feature, "feature", feature)  # of a sequence, which has no base class
        if hasattr(inner, "items"):  # FeaturesDict and the like, which are not Mappings
            yield from _paths(inner, f"{prefix}{name}/")
        else:
            yield prefix + name, inner
