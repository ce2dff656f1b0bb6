"""The workdir of a run: whose it is, and that nobody else writes in it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from mae_jax.config import differences, from_json, to_json
from mae_jax.metrics import filled
from mae_jax.paths import check_place
from mae_jax.spec import is_extension, parse
from mae_jax.types import Metric, UserError
from mae_jax.upgrade import upgrade

WEIGHTS = "weights.safetensors"
"""What a folder of imported weights has in place of checkpoints."""
COMPUTED = ("attention", "remat", "gather")
"""How a network is computed: arguments of encoders, and of decoders."""
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
"""What a resumed run may set otherwise: it changes the numbers by rounding at most, or lets a run
go on that a bad image has stopped. The same goes for what COMPUTED names in an encoder's spec."""


def is_folder_of_weights(folder: Path) -> bool:
    """Whether weights were imported into this folder."""
    return (folder / WEIGHTS).is_file() and not (folder / "checkpoints").exists()


@contextlib.contextmanager
def lock(workdir: Path):
    """Makes the workdir, and keeps other runs out of it.

    Raises:
        UserError: a run is using it already, or it cannot be made.
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
    """The config of a workdir.

    A run may name modules of the user's own, which are imported to build it. Imported weights may
    come from anywhere: what they name is the library's.

    Raises:
        UserError: there is none, it is damaged, or it came with weights and names other modules.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise UserError(f"{workdir} is not the workdir of a run: it has no config.json")
    way_out = (
        "the command of this run makes it again in another --workdir: stop it there, and copy the "
        "file here"
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
        for text in value if isinstance(value, list) else [value]:
            for name in filter(is_extension, _names(text)):
                raise UserError(
                    f"{path}: config.{key} names the module {name}, and what came with weights is "
                    "never imported: weights of a network of your own stay in its run"
                )


def _names(text: Any) -> list[str]:
    """What a spec string names; nothing if it is none."""
    try:
        return [call.name for call in parse(text)] if isinstance(text, str) else []
    except UserError:
        return []


def parse_json(text: bytes, where: str, way_out: str, check: Callable[[Any], bool]) -> Any:
    """The content of JSON that was written into a workdir.

    Args:
        where: it was written.
        way_out: what the user can do if it is damaged.
        check: whether the content has the right shape.

    Raises:
        UserError: it is damaged.
    """
    try:
        content, reason = json.loads(text), "it holds something else"
    except (ValueError, RecursionError) as error:
        content, reason = None, str(error)
    if content is None or not check(content):
        raise UserError(f"{where} is damaged ({reason}): {way_out}")
    return content


def read_json(path: Path, way_out: str, check: Callable[[Any], bool]) -> Any:
    """The content of a JSON file, see `parse_json`."""
    return parse_json(path.read_bytes(), str(path), way_out, check)


def has(content: Any, *keys: str) -> bool:
    """Whether something that was read is an object with these keys."""
    return isinstance(content, dict) and {*keys} <= content.keys()


def is_results(content: Any) -> bool:
    """Whether something that was read is representation -> metric -> value."""
    return isinstance(content, dict) and all(
        isinstance(metrics, dict) and all(isinstance(x, int | float) for x in metrics.values())
        for metrics in content.values()
    )


def is_record(content: Any, *keys: str) -> bool:
    """Whether something that was read has 'results', declarations in 'metrics', and these keys."""
    return (
        has(content, *keys, "results")
        and is_results(content["results"])
        and _is_metrics(content.get("metrics", {}))
    )


def _is_metrics(content: Any) -> bool:
    """Whether something that was read is metric -> some of the fields of its `Metric`."""
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
    """The content of a run's `results.json`: 'step', 'results', 'final' or None in its place, and
    'metrics', see `metrics_of`.

    Raises:
        UserError: it is damaged.
    """
    check = lambda content: (
        is_record(content, "step", "final")
        and (content["final"] is None or is_results(content["final"]))
    )
    found = read_json(path, "mae-jax evaluate makes a new one", check)
    return found | {"metrics": metrics_of(found)}


def read_classes(workdir: Path) -> dict[str, list[str]]:
    """Field -> names of the classes that a run has learned; {} if it does not say.

    Raises:
        UserError: they are damaged.
    """
    path = workdir / "classes.json"
    check = lambda content: (
        isinstance(content, dict) and all(isinstance(names, list) for names in content.values())
    )
    way_out = "remove it, or copy that of a run with the same classes"
    return read_json(path, way_out, check) if path.is_file() else {}


def set_aside(path: Path) -> Path:
    """Renames a damaged file, so that it can be written anew. Returns the new path."""
    number = len(list(path.parent.glob(f"{path.stem}.damaged-*")))
    aside = path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")
    os.replace(path, aside)
    return aside


def recorded(workdir: Path) -> dict[str, Any]:
    """The arguments of the method that the checkpoints of a workdir were trained with; {} if it has
    no checkpoint.
    """
    return read_config(workdir).method.args.to_dict() if last_step(workdir) is not None else {}


def last_step(workdir: Path) -> int | None:
    """The step of the newest checkpoint of a workdir; None if it has none."""
    names = [path.name for path in workdir.glob("checkpoints/*")]
    return max((int(name) for name in names if name.isdigit()), default=None)


def claim(workdir: Path, config: ConfigDict, fingerprints: Mapping[str, str]) -> list[str]:
    """Makes the workdir this run's, or checks that it is, if it holds a checkpoint.

    Args:
        fingerprints: split -> what tells its examples from others, beside the config.

    Returns:
        What has changed without harm since, a line each.

    Raises:
        UserError: it is another run's; names every difference.
    """
    if is_folder_of_weights(workdir):
        raise UserError(f"{workdir} holds imported weights: use another --workdir")
    claimed = config.copy_and_resolve_references()
    claimed.fingerprints = dict(fingerprints)
    changes = changes_since(workdir, claimed)
    if jax.process_index() == 0:
        write(workdir / "config.json", to_json(claimed))
    return [_told(key, old, new) for key, (old, new) in changes.items()]


def _told(key: str, old: Any, new: Any) -> str:
    if key == "fingerprints.reading":
        return (
            "some images are read in another way than where this run stopped. "
            f"Now: {new or 'as before all changes'}. Then: {old or 'as before these changes'}"
        )
    return f"config.{key} is now {new!r}, was {old!r}"


def changes_since(workdir: Path, config: ConfigDict) -> dict[str, tuple]:
    """Path -> (old, new) of what a resolved config changes in a run that has a checkpoint.

    Raises:
        UserError: it is another run's workdir; names every difference.
    """
    if last_step(workdir) is None:
        return {}
    there, config = read_config(workdir), upgrade(config.copy_and_resolve_references())
    if "fingerprints" not in config:
        del there.fingerprints
    changes = differences(there, config)
    start = changes.get("init_from.path", ("", ""))
    if all(start) and len({Path(path).resolve() for path in start}) == 1:
        del changes["init_from.path"]  # the same folder, spelt differently
    harmful = {k: v for k, v in changes.items() if not _may_change(k, *v)}
    if harmful:
        listed = "; ".join(f"{k}: {old!r} there, {new!r} now" for k, (old, new) in harmful.items())
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
    """What an encoder's spec says but for how it is computed."""
    return [
        (name, args, {k: v for k, v in kwargs.items() if k not in COMPUTED})
        for name, args, kwargs in parse(encoder)
    ]


def write(path: Path, text: str) -> None:
    """Replaces a file, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)
