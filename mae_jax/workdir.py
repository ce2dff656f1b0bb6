"""The workdir of a run: belongs to one config and is locked while a run uses it."""

import contextlib
import fcntl
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mae_jax.config import differences, from_json, to_json
from mae_jax.json_files import has, read_json
from mae_jax.metrics import filled
from mae_jax.paths import check_place
from mae_jax.spec import is_extension, parse
from mae_jax.types import Metric, UserError
from mae_jax.upgrade import upgrade

WEIGHTS = "weights.safetensors"
"""File of the weights in a folder of imported weights, which has no checkpoints."""
CLASSES = "classes.json"
"""File of the names of the classes that a run learns."""
COMPUTED = ("attention", "remat", "gather")
"""Arguments of encoders and decoders that change how a network is computed, but not the network."""
MAY_CHANGE = (
    "log.",
    "checkpoint.",
    "evals.",
    "mesh.",
    "compiler.",
    "profile",
    "data.workers",
    "data.pipeline",
    "data.on_error",
    "fingerprints.reading",
    *(f"method.args.decoder_{name}" for name in COMPUTED),
)
"""Prefixes of config keys that a resumed run may change, like COMPUTED in an encoder's spec: they
change the numbers by rounding at most, or let a run continue that a bad image has stopped."""


def is_folder_of_weights(folder: Path) -> bool:
    """Whether weights were imported into this folder."""
    return (folder / WEIGHTS).is_file() and not (folder / "checkpoints").exists()


@contextlib.contextmanager
def lock(workdir: Path):
    """Creates the workdir, and locks it against other runs.

    Raises:
        UserError: another run is using it, or it cannot be created.
    """
    check_place(workdir, "--workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    if jax.process_index() != 0:
        yield
        return
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another run is using {workdir}: use another --workdir") from error
        yield


def read_config(workdir: Path) -> ConfigDict:
    """Reads the config of a workdir.

    The config of a run may name the user's own modules, which are imported to build the run. The
    config of imported weights may name only the library's, as weights may come from anywhere.

    Raises:
        UserError: there is no config, it is damaged, or that of imported weights names extensions.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} is not the workdir of a run: it has no config.json")
    way_out = (
        "to restore it, start the same command in another --workdir, stop it, and copy its "
        "config.json here"
    )
    try:
        config = from_json(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); {way_out}") from error
    if not isinstance(config, ConfigDict) or "method" not in config:
        raise UserError(f"{path} is damaged (it names no method); {way_out}")
    if is_folder_of_weights(workdir):
        _check_names(path, config)
    return upgrade(config)


def _check_names(path: Path, config: ConfigDict) -> None:
    """Raises UserError if a config names a module that is not the library's."""
    for key, (_, value) in differences(ConfigDict(), config).items():
        nested = key.startswith("method.")  # where arguments may be specs: teacher('vit(B)')
        for text in value if isinstance(value, list) else [value]:
            for name in filter(is_extension, _names(text, nested)):
                raise UserError(
                    f"{path}: config.{key} names the module {name}, which is not imported for "
                    "imported weights: use the run itself for a network of your own"
                )


def _names(text: Any, nested: bool) -> list[str]:
    """The names in a spec string, with `nested` also in its arguments; none if it is not a spec."""
    try:
        calls = parse(text) if isinstance(text, str) else []
    except UserError:
        return []
    given = [arg for call in calls if nested for arg in (*call.args, *call.kwargs.values())]
    return [call.name for call in calls] + [name for arg in given for name in _names(arg, nested)]


def is_results(content: Any) -> bool:
    """Whether parsed JSON is representation -> metric -> value."""
    return isinstance(content, dict) and all(
        isinstance(metrics, dict) and all(isinstance(x, int | float) for x in metrics.values())
        for metrics in content.values()
    )


def is_record(content: Any, *keys: str) -> bool:
    """Whether parsed JSON has 'results', these keys, and valid declarations if it has 'metrics'."""
    return (
        has(content, *keys, "results")
        and is_results(content["results"])
        and _is_metrics(content.get("metrics", {}))
    )


def _is_metrics(content: Any) -> bool:
    """Whether parsed JSON is metric -> some of the fields of its `Metric`."""
    kinds = {field: type(default) for field, default in Metric()._asdict().items()}
    return isinstance(content, dict) and all(
        isinstance(one, dict) and all(type(one.get(k, kind())) is kind for k, kind in kinds.items())
        for one in content.values()
    )


def metrics_of(record: Mapping[str, Any]) -> dict[str, Metric]:
    """The declarations of all metrics in results."""
    declared = {
        name: Metric(**{field: one[field] for field in Metric._fields if field in one})
        for name, one in record.get("metrics", {}).items()
    }
    results = [*record["results"].values(), *(record.get("final") or {}).values()]
    return filled(declared, (name for values in results for name in values))


def read_results(path: Path) -> dict[str, Any]:
    """Reads a run's `results.json`: 'step', 'results', 'final' (may be None) and 'metrics', see
    `metrics_of`.

    Raises:
        UserError: it is damaged.
    """
    check = lambda content: (
        is_record(content, "step", "final")
        and (content["final"] is None or is_results(content["final"]))
    )
    content = read_json(path, "mae-jax evaluate writes a new one", check)
    return content | {"metrics": metrics_of(content)}


def read_classes(workdir: Path) -> dict[str, list[str]]:
    """Field -> names of the classes that a run has learned; {} if it has none. Raises UserError if
    they are damaged.
    """
    path = workdir / CLASSES
    check = lambda content: (
        isinstance(content, dict) and all(isinstance(names, list) for names in content.values())
    )
    return read_json(path, "remove it", check) if path.is_file() else {}


def check_class_names(workdir: Path, classes: Mapping[str, Sequence[str]]) -> None:
    """Raises UserError if classes differ in names or order from those that a run has learned.

    Args:
        classes: field -> names of its classes; fields that are missing pass.
    """
    for field, learned in read_classes(workdir).items():
        pairs = itertools.zip_longest(learned, classes.get(field, learned))
        for old, new in (pair for pair in pairs if pair[0] != pair[1]):
            raise UserError(
                f"{workdir} has learned {field!r} with the class {old!r}, where config.data.train "
                f"has {new!r}: use the same classes in the same order"
            )


def set_aside(path: Path) -> Path:
    """Renames a damaged file, so that a new one can be written. Returns the new path."""
    number = len(list(path.parent.glob(f"{path.stem}.damaged-*")))
    aside = path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")
    os.replace(path, aside)
    return aside


def recorded(workdir: Path) -> dict[str, Any]:
    """The method arguments of the run that wrote a workdir's checkpoints; {} if there are none."""
    return read_config(workdir).method.args.to_dict() if last_step(workdir) is not None else {}


def last_step(workdir: Path) -> int | None:
    """The step of the newest checkpoint of a workdir; None if it has none."""
    names = [path.name for path in workdir.glob("checkpoints/*")]
    return max((int(name) for name in names if name.isdigit()), default=None)


def claim(
    workdir: Path,
    config: ConfigDict,
    fingerprints: Mapping[str, str],
    classes: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Claims the workdir for this run; if it has a checkpoint, checks that the run can resume.

    Args:
        fingerprints: split -> fingerprint of its list of examples.
        classes: field -> names of its classes.

    Returns:
        Lines about the allowed changes since the checkpoint.

    Raises:
        UserError: the workdir belongs to another config or classes; names the differences.
    """
    if is_folder_of_weights(workdir):
        raise UserError(f"{workdir} holds imported weights: use another --workdir")
    claimed = config.copy_and_resolve_references()
    claimed.fingerprints = dict(fingerprints)
    changes = changes_since(workdir, claimed)
    if last_step(workdir) is not None:
        check_class_names(workdir, classes or {})
    if jax.process_index() == 0:
        write(workdir / "config.json", to_json(claimed))
        write(workdir / CLASSES, json.dumps(classes or {}))
    return [_told(key, old, new) for key, (old, new) in changes.items()]


def _told(key: str, old: Any, new: Any) -> str:
    if key == "fingerprints.reading":
        return (
            "some images are read differently than before this run stopped. "
            f"Now: {new or 'as before all changes'}. Then: {old or 'as before these changes'}"
        )
    return f"config.{key} is now {new!r}, was {old!r}"


def changes_since(workdir: Path, config: ConfigDict) -> dict[str, tuple]:
    """Path -> (old, new) of each value that differs from the stored config; {} without checkpoint.

    Raises:
        UserError: a difference that a resumed run may not have; names all of them.
    """
    if last_step(workdir) is None:
        return {}
    stored, config = read_config(workdir), upgrade(config.copy_and_resolve_references())
    if "fingerprints" not in config:
        del stored.fingerprints
    changes = differences(stored, config)
    start = changes.get("init_from.path", ("", ""))
    if all(start) and len({Path(path).resolve() for path in start}) == 1:
        del changes["init_from.path"]  # the same folder, written differently
    refused = {k: v for k, v in changes.items() if not _may_change(k, *v)}
    if refused:
        listed = "; ".join(f"{k}: {old!r} there, {new!r} now" for k, (old, new) in refused.items())
        raise UserError(
            f"{workdir} is the workdir of another config ({listed}): use another --workdir, or "
            "the same values"
        )
    return changes


def _may_change(key: str, old: Any, new: Any) -> bool:
    if key == "method.args.encoder" and old and new:
        return _network(old) == _network(new)
    return key.startswith(MAY_CHANGE)


def _network(encoder: str) -> list[tuple]:
    """The parsed spec of an encoder without the arguments in COMPUTED."""
    return [
        (name, args, {k: v for k, v in kwargs.items() if k not in COMPUTED})
        for name, args, kwargs in parse(encoder)
    ]


def write(path: Path, text: str) -> None:
    """Writes a file atomically."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)
