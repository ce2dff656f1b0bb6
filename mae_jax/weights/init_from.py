"""How a run begins: the config section init_from puts the encoder of another run, or of published
weights, into a part of the state.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from mae_jax import weights
from mae_jax.engine.transfer import transfer
from mae_jax.models.vit import ViT
from mae_jax.ops.patches import grid_of
from mae_jax.ops.posemb import with_prefix
from mae_jax.spec import arguments, build
from mae_jax.types import Method, TrainState, UserError
from mae_jax.workdir import read_config, write

logger = logging.getLogger(__name__)

ENCODER = "params/encoder"
ENCODER_KEY = "init_from"


class Row(NamedTuple):
    """One encoder that is loaded."""

    key: str
    """Of the config, e.g. 'init_from.teacher'."""
    path: str
    """A workdir, a file or folder of weights in any layout that `weights.read` knows, or
    hf://org/name."""
    into: str
    """Part of the state, one of `Method.loads`."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class InitFrom:
    """What is loaded into the initial state of a run."""

    rows: Sequence[Row]
    args: Mapping[str, Any]
    """All arguments of the method."""
    method: Method
    image: Sequence[int] | None
    """[*space, C] of the images here."""

    def load(self, state: TrainState) -> TrainState:
        """The state with what is loaded.

        Raises:
            UserError: there are no such weights, or they are of another encoder.
        """
        for row in self.rows:
            state = self._load_row(state, row)
        if not self.rows:
            return state
        # Copies, as a step that reuses the buffers of its state must find each once.
        extra = jax.tree.map(jnp.copy, self.method.after_load(state.params, state.extra))
        return state.replace(extra=extra)

    def record(self, workdir: Path) -> list[str]:
        """Writes down which parameters a run starts from, from one process. Returns a line for
        each.
        """
        if not self.rows or jax.process_index() != 0:
            return []
        found = {row.key: origin(row.path) for row in self.rows}
        more = {key: start for key, start in found.items() if key != ENCODER_KEY}
        record = found.get(ENCODER_KEY, {}) | ({"more": more} if more else {})
        write(workdir / "origin.json", json.dumps(record))
        lines = []
        for row, start in zip(self.rows, found.values(), strict=True):
            step = f", step {start['step']}" if start["step"] is not None else ""
            into = "" if row.key == ENCODER_KEY else f" in {row.into}"
            lines.append(f"starting from {row.path}{step}{into}")
        return lines

    def _load_row(self, state: TrainState, row: Row) -> TrainState:
        if "encoder" not in self.args:
            raise UserError(f"config.{row.key}: the method has no argument 'encoder' to load into")
        network = build(weights.portable_args(self.args)["encoder"], "models")
        model, _ = weights.read(row.path, _options(network))
        if row.into == ENCODER:
            self._check_encoder(row, model, network)
        here = {"params": state.params, "extra": state.extra}
        names = row.into.split("/")
        part = here
        for name in names:
            if name not in part:
                raise UserError(f"config.{row.key}: the state has no {row.into}")
            part = part[name]
        prefix = "encoder/"
        saved = {
            name.removeprefix(prefix): array
            for name, array in model.params.items()
            if name.startswith(prefix)
        }
        self._check_positions(row, saved, part)
        old = model.image
        if (
            old is None
            and "positions" in saved
            and len(saved["positions"]) == len(part["positions"])
        ):
            old = self.image  # of runs that did not write it down: as many patches are the same
        # Only the encoder is the method's own: others stay as they are, or do not fit.
        ours = row.into == ENCODER
        adapt = self.method.adapt(self.image, old) if ours else lambda path, array: array
        if isinstance(network, ViT) and ours and old and "positions" in {*part} - {*saved}:
            # Sine-cosine positions are resampled as learned ones are.
            grid = grid_of(old[:-1], network.patch)
            saved["positions"] = with_prefix(grid, network.width, network.prefix)
        missing = self.method.loads()[row.into]
        loaded = transfer(part, saved, missing=missing, adapt=adapt, where=prefix)
        return state.replace(**_replaced(here, names, loaded))

    def _check_encoder(self, row: Row, model: weights.Model, network: Any) -> None:
        """Raises UserError if the weights are of another encoder; warns of other statistics."""
        encoder, ours = model.args["encoder"], self.args["encoder"]
        if build(encoder, "models").architecture != network.architecture:
            raise UserError(
                f"the encoder in {row.path} is of another architecture: it is {encoder}, and "
                f"config.method.args.encoder={ours}"
            )
        for name in ("mean", "std"):
            theirs, here = tuple(model.args.get(name, ())), tuple(self.args.get(name, ()))
            if theirs and here and theirs != here:  # colorization has none
                logger.warning(
                    "the encoder in %s knows images with %s=%s, and config.method.args.%s=%s",
                    *(row.path, name, theirs, name, here),
                )

    def _check_positions(self, row: Row, saved: Mapping[str, Any], part: Any) -> None:
        if "positions" in saved and "positions" not in part:
            raise UserError(
                f"the encoder in {row.path} has learned positions: add learned_positions=True to "
                f"config.method.args.encoder={self.args['encoder']}"
            )


def make_init_from(
    section: Mapping[str, Any], *, config: ConfigDict, method: Method, image: Sequence[int] | None
) -> InitFrom:
    """The init_from section: `path`, of the encoder; and sub-sections of any name for more, each
    with `path` and `into`.

    Args:
        config: section of the method.
        method: what is trained.
        image: [*space, C] of its images.

    Raises:
        UserError: the method takes nothing from elsewhere, or not there.
    """
    rows = [Row(ENCODER_KEY, section["path"], ENCODER)] if section["path"] else []
    for name, value in section.items():
        if name != "path":
            rows.append(_row(f"init_from.{name}", value))
    for row in rows:
        if row.into not in method.loads():
            known = ", ".join(method.loads()) or "nothing"
            raise UserError(
                f"config.{row.key}: {config.name} loads {known} from other weights, not {row.into}"
            )
    args = arguments(config.name, "methods", config.args) if rows else {}
    return InitFrom(rows=rows, args=args, method=method, image=image)


def _row(key: str, value: Any) -> Row:
    if not isinstance(value, ConfigDict) or {*value} != {"path", "into"}:
        raise UserError(f"config.{key}={value!r}: write a section with path and into")
    return Row(key, value["path"], value["into"])


def _replaced(tree: Any, names: Sequence[str], value: Any) -> Any:
    """A copy of nested dicts with a value at a path."""
    if not names:
        return value
    first, *rest = names
    return {**tree, first: _replaced(tree[first], rest, value)}


def _options(network: Any) -> weights.Options:
    """What weights for an encoder are read with."""
    heads = network.heads if isinstance(network, ViT) else None
    return weights.Options(
        encoder_only=True, for_start=True, likely_heads=heads, allow=(r"^pooler\.",)
    )


def pixel_statistics(path: str, method: ConfigDict) -> dict[str, tuple[float, ...]]:
    """The 'mean' and 'std' of pixels that the encoder of a run or of weights has learned with; {}
    if nothing is known of them.

    Args:
        path: see `Row`.
        method: section of the config, of the method that starts with it.
    """
    if not path:
        return {}
    if weights.is_run(path):
        args = _arguments(read_config(Path(path).expanduser()).method)
    else:
        network = build(weights.portable_args(_arguments(method))["encoder"], "models")
        args = weights.read(path, _options(network))[0].args
    return {name: tuple(args[name]) for name in ("mean", "std") if args.get(name)}


def _arguments(method: ConfigDict) -> dict[str, Any]:
    """All arguments of the method that a section of a config names."""
    return arguments(method.name, "methods", method.args)


def origin(path: str) -> dict | None:
    """What a run starts from: step and digest of the newest checkpoint of a run, read without
    opening a device; digest of other weights. None if there is nothing yet.
    """
    if path.startswith("hf://"):
        path = str(weights.from_hub(path))
    source = Path(path).expanduser()
    steps = [int(found.name) for found in source.glob("checkpoints/*") if found.name.isdigit()]
    if steps:
        files, step = [source / "checkpoints" / str(max(steps)) / "leaves" / "metadata"], max(steps)
    else:
        known = lambda file: file.suffix in weights.SUFFIXES and file.is_file()
        files, step = list(filter(known, sorted(source.iterdir()))) if source.is_dir() else [], None
        if source.is_file():  # whatever it is called
            files = [source]
    if not files:
        return None
    digests = []
    for file in files:
        with file.open("rb") as content:
            digests.append(hashlib.file_digest(content, "sha256"))
    # Workdirs hold the digest of a checkpoint as that of its one file.
    digest = digests[0] if steps else hashlib.sha256(b"".join(d.digest() for d in digests))
    return dict(step=step, digest=digest.hexdigest()[:16])
