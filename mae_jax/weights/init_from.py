"""The config section init_from: loads the encoder or tokenizer of another run, or of published
weights, into a part of the initial state.
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
from mae_jax.models.encoder import Encoder, Loadable
from mae_jax.models.vit import ViT
from mae_jax.models.vitdet import ViTDet
from mae_jax.ops.patches import grid_of
from mae_jax.spec import arguments, build, check_choice
from mae_jax.types import Method, TrainState, UserError
from mae_jax.weights.inflate import HOW, differs_in_rank, inflated
from mae_jax.weights.patches import differs_in_patch, with_patch
from mae_jax.workdir import read_config, write

logger = logging.getLogger(__name__)

ENCODER = "params/encoder"
ENCODER_KEY = "init_from"


class Row(NamedTuple):
    """One network to load."""

    key: str
    """Key of the config, e.g. 'init_from.teacher'."""
    path: str
    """A workdir, a file or folder of weights in any layout that `weights.read` supports, or
    hf://org/name."""
    into: str
    """Part of the state, one of `Method.loads`."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class InitFrom:
    """The weights to load into the initial state of a run."""

    rows: Sequence[Row]
    args: Mapping[str, Any]
    """All arguments of the method."""
    method: Method
    image: Sequence[int] | None
    """[*space, C] of the training images."""
    inflate: str
    """How the encoder of images becomes one of clips, one of `inflate.HOW`."""

    def load(self, state: TrainState) -> TrainState:
        """The state with the weights loaded.

        Raises:
            UserError: the weights do not exist, or belong to another encoder.
        """
        for row in self.rows:
            state = self._load_row(state, row)
        if not self.rows:
            return state
        # Copies, because a step donates its state, and a buffer cannot be donated twice.
        extra = jax.tree.map(jnp.copy, self.method.after_load(state.params, state.extra))
        return state.replace(extra=extra)

    def record(self, workdir: Path) -> list[str]:
        """Writes origin.json, the weights that a run starts from, in the first process. Returns a
        log line for each of them.
        """
        if not self.rows or jax.process_index() != 0:
            return []
        origins = {row.key: origin(row.path) for row in self.rows}
        more = {key: start for key, start in origins.items() if key != ENCODER_KEY}
        record = origins.get(ENCODER_KEY, {}) | ({"more": more} if more else {})
        write(workdir / "origin.json", json.dumps(record))
        lines = []
        for row, start in zip(self.rows, origins.values(), strict=True):
            step = f", step {start['step']}" if start["step"] is not None else ""
            into = "" if row.key == ENCODER_KEY else f" in {row.into}"
            lines.append(f"starting from {row.path}{step}{into}")
        return lines

    def _load_row(self, state: TrainState, row: Row) -> TrainState:
        if "encoder" not in self.args:
            raise UserError(f"config.{row.key}: the method has no argument 'encoder' to load into")
        own = build(weights.portable_args(self.args)["encoder"], "models", Encoder)
        networks = {ENCODER: own, **self.method.encoders()}
        network = networks.get(row.into, own)  # for parts of an unknown kind, the likely one
        model, _ = weights.read(row.path, _options(network))
        saved = network.arrays(model.params, model.extra)
        pretrained = build(network.described(model.args), "models", Loadable) if saved else None
        other_patch = row.into == ENCODER and saved and differs_in_patch(pretrained, network)
        old, ours = model.image, row.into == ENCODER
        other_rank = ours and saved and differs_in_rank(pretrained, network, old, self.image)
        if row.into in networks and not other_patch and not other_rank:
            self._check_architecture(row, model, network, found=bool(saved))
        if row.into == ENCODER:
            self._compare_statistics(row, model)
        tree = {"params": state.params, "extra": state.extra}
        names = row.into.split("/")
        part = tree
        for name in names:
            if name not in part:
                raise UserError(f"config.{row.key}: the state has no {row.into}")
            part = part[name]
        if other_rank:
            how = dict(how=self.inflate, path=row.path)
            saved, old = inflated(saved, pretrained, network, old, self.image, **how)
        self._check_positions(row, saved, part)
        if other_patch:
            saved, old = with_patch(saved, old, pretrained, network, row.path)
        if (
            old is None
            and "positions" in saved
            and len(saved["positions"]) == len(part["positions"])
        ):
            old = self.image  # the run did not record its image size; the number of patches agrees
        # Only the method's own encoder is adapted to other images; other parts must fit exactly.
        adapt = self.method.adapt(self.image, old) if ours else lambda path, array: array
        computed = isinstance(network, ViT | ViTDet) and "positions" in {*part} - {*saved}
        if computed and ours and old:
            # Sine-cosine positions are resampled as learned ones are.
            grid = grid_of(old[:-1], network.patch)
            saved["positions"] = network.table(grid)
        missing = self.method.loads()[row.into]
        loaded = transfer(part, saved, missing=missing, adapt=adapt, where=f"{names[-1]}/")
        return state.replace(**_replaced(tree, names, loaded))

    def _check_architecture(
        self, row: Row, model: weights.Model, network: Any, *, found: bool
    ) -> None:
        """Raises UserError if the weights have no such network, or one of another architecture."""
        kind = row.into.rpartition("/")[2]
        if not found:
            raise UserError(
                f"config.{row.key}.path={row.path}: weights of {model.method} hold no {kind}: give "
                "a run of the method that trains one"
            )
        spec = network.described(model.args)
        if build(spec, "models", Loadable).architecture != network.architecture:
            raise UserError(
                f"the {kind} in {row.path} has another architecture: it is {spec}, and "
                f"config.method.args.{self._option(row)}"
            )

    def _option(self, row: Row) -> str:
        """The argument of the method that an encoder is set in: 'encoder=vit(B, patch=16)'."""
        collection, part, *_ = row.into.split("/")
        name = part if collection == "extra" and part in ("target", "mask") else "encoder"
        return f"{name}={self.args[name]}"

    def _compare_statistics(self, row: Row, model: weights.Model) -> None:
        """Warns if the mean and std of pixels differ."""
        for name in ("mean", "std"):
            old, new = tuple(model.args.get(name, ())), tuple(self.args.get(name, ()))
            if old and new and old != new:  # colorization has none
                logger.warning(
                    "the encoder in %s was trained with %s=%s, and config.method.args.%s=%s",
                    *(row.path, name, old, name, new),
                )

    def _check_positions(self, row: Row, saved: Mapping[str, Any], part: Any) -> None:
        if "positions" in saved and "positions" not in part:
            raise UserError(
                f"the encoder in {row.path} has learned positions: add learned_positions=True to "
                f"config.method.args.{self._option(row)}"
            )


def make_init_from(
    section: Mapping[str, Any], *, config: ConfigDict, method: Method, image: Sequence[int] | None
) -> InitFrom:
    """Reads the section init_from: `path` of the encoder, optionally `inflate` (see `inflate.HOW`),
    and a sub-section of any name for each further part, with `path` and `into`.

    Args:
        config: section of the method.
        method: the method to train.
        image: [*space, C] of its images.

    Raises:
        UserError: the method does not load weights, or not into this part.
    """
    rows = [Row(ENCODER_KEY, section["path"], ENCODER)] if section["path"] else []
    inflate = section.get("inflate", "mean")
    check_choice("config.init_from.inflate", inflate, HOW)
    for name, value in section.items():
        if name not in ("path", "inflate"):
            rows.append(_row(f"init_from.{name}", value))
    for row in rows:
        if row.into not in method.loads():
            known = ", ".join(method.loads()) or "nothing"
            raise UserError(
                f"config.{row.key}: {config.name} loads weights into {known}, not into {row.into}"
            )
    args = arguments(config.name, "methods", config.args) if rows else {}
    return InitFrom(rows=rows, args=args, method=method, image=image, inflate=inflate)


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
    """Options for reading the weights of an encoder."""
    heads = network.heads if isinstance(network, ViT) else None
    return weights.Options(
        encoder_only=True, for_start=True, likely_heads=heads, allow=(r"^pooler\.",)
    )


def pixel_statistics(path: str, method: ConfigDict) -> dict[str, tuple[float, ...]]:
    """The 'mean' and 'std' of pixels that an encoder was trained with; {} if they are not known.

    Args:
        path: see `Row`.
        method: section of the config, of the method that loads the encoder.
    """
    if not path:
        return {}
    if weights.is_run(path):
        args = _arguments(read_config(Path(path).expanduser()).method)
    else:
        network = build(weights.portable_args(_arguments(method))["encoder"], "models", Encoder)
        args = weights.read(path, _options(network))[0].args
    return {name: tuple(args[name]) for name in ("mean", "std") if args.get(name)}


def _arguments(method: ConfigDict) -> dict[str, Any]:
    """All arguments of the method in a section of the config, defaults included."""
    return arguments(method.name, "methods", method.args)


def origin(path: str) -> dict | None:
    """Identifies the weights at `path`: 'step' and 'digest' of a run's newest checkpoint (no device
    is initialized), or the 'digest' of weight files. None if there are none yet.
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
