"""How a run begins: afresh, or with the encoder of another run or of published weights."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mae_jax import weights
from mae_jax.engine.transfer import transfer
from mae_jax.spec import build
from mae_jax.types import Batch, Method, TrainState, UserError
from mae_jax.workdir import read_config

logger = logging.getLogger(__name__)


def make_start(
    *,
    path: str,
    args: Mapping[str, Any],
    method: Method,
    example: Batch,
    fresh: Callable[[], TrainState],
) -> Callable[[], TrainState]:
    """The init_from section: what makes the state before the first step.

    Args:
        path: where the encoder is taken from: a workdir, a file or folder of weights in any layout
            that `weights.read` knows, or hf://org/name; empty: nowhere.
        args: of the method here; its encoder is the same as there.
        method, example, fresh: what is trained, a batch of it, and its fresh state.

    Raises:
        UserError: the method takes no parameters from elsewhere; when called: there are none, or
            of another encoder.
    """
    if not path:
        return fresh
    if not hasattr(method, "fresh"):
        raise UserError("config.init_from is for tasks, such as tasks.finetune: start afresh here")
    # A method's class and its `make` stand in one file.
    args = weights.arguments(type(method).__module__.removeprefix("mae_jax."), args)
    network = build(weights.anywhere(args)["encoder"], "models")
    options = _options(network)

    def start() -> TrainState:
        model, _ = weights.read(path, options)
        encoder = model.args["encoder"]
        if build(encoder, "models").architecture != network.architecture:
            raise UserError(
                f"the encoder in {path} is of another architecture: it is {encoder}, and "
                f"config.method.args.encoder={args['encoder']}"
            )
        for name in ("mean", "std"):
            theirs, ours = tuple(model.args.get(name, ())), tuple(args[name])
            if theirs and theirs != ours:  # colorization has none
                logger.warning(
                    "the encoder in %s knows images with %s=%s, and config.method.args.%s=%s",
                    *(path, name, theirs, name, ours),
                )
        saved = {n: array for n, array in model.params.items() if not re.search(method.fresh, n)}
        state, missing = fresh(), f"{method.fresh}|^encoder/positions$"
        there, here = saved.get("encoder/positions"), state.params["encoder"].get("positions")
        if there is not None and here is None:
            raise UserError(
                f"the encoder in {path} has learned positions: add learned_positions=True to "
                f"config.method.args.encoder={args['encoder']}"
            )
        shape, old = example["image"].shape[1:], model.image
        if old is None and there is not None and len(there) == len(here):
            old = shape  # of runs that did not write it down: as many patches are the same ones
        adapt = method.adapt(shape, old)
        params = transfer(state.params, saved, missing=missing, adapt=adapt)
        return state.replace(params=params, extra=method.after_update(params, state.extra, -1))

    return start


def _options(network: Any) -> weights.Options:
    """What weights for an encoder are read with."""
    heads = getattr(network, "heads", None)
    return weights.Options(
        encoder_only=True, for_start=True, likely_heads=heads, allow=(r"^pooler\.",)
    )


def pixel_statistics(path: str, method: ConfigDict) -> dict[str, tuple[float, ...]]:
    """The 'mean' and 'std' of pixels that the encoder of a run or of weights has learned with; {}
    if nothing is known of them.

    Args:
        path: see `make_start`.
        method: section of the config, of the method that starts with it.
    """
    if not path:
        return {}
    if weights.is_run(path):
        args = _arguments(read_config(Path(path).expanduser()).method)
    else:
        network = build(weights.anywhere(_arguments(method))["encoder"], "models")
        args = weights.read(path, _options(network))[0].args
    return {name: tuple(args[name]) for name in ("mean", "std") if args.get(name)}


def _arguments(method: ConfigDict) -> dict[str, Any]:
    """All arguments of the method that a section of a config names."""
    return weights.arguments(method.name, method.args)


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
