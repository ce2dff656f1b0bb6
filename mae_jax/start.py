"""How a run begins: afresh, or with the parameters of another run."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mae_jax.engine.checkpoint import read_params
from mae_jax.engine.transfer import transfer
from mae_jax.spec import build
from mae_jax.types import Batch, Method, TrainState, UserError
from mae_jax.workdir import read_config


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
        path: workdir of the run whose parameters are taken; empty: none.
        args: of the method here, its encoder among them: the same as there.
        method, example, fresh: what is trained, a batch of it, and its fresh state.

    Raises:
        UserError: the method takes no parameters from other runs; when called: the run has no
            checkpoint, or another encoder.
    """
    if not path:
        return fresh
    if not hasattr(method, "fresh"):
        raise UserError("config.init_from is for tasks, such as tasks.finetune: start afresh here")

    def start() -> TrainState:
        folder = Path(path).expanduser()
        theirs = read_config(folder).method.args.encoder
        if build(theirs, "models") != build(args["encoder"], "models"):
            raise UserError(
                f"the run in {path} is of another architecture: its encoder is {theirs}, and "
                f"config.method.args.encoder={args['encoder']}"
            )
        saved = read_params(folder / "checkpoints")
        saved = {name: array for name, array in saved.items() if not re.search(method.fresh, name)}
        adapt = method.adapt(example["image"].shape[1:])
        state, missing = fresh(), f"{method.fresh}|^encoder/positions$"
        params = transfer(state.params, saved, missing=missing, adapt=adapt)
        return state.replace(params=params, extra=method.after_update(params, state.extra, -1))

    return start


def origin(path: str) -> dict | None:
    """Step and digest of the newest checkpoint of a run, read without opening a device; None if
    there is none.
    """
    folder = Path(path).expanduser() / "checkpoints"
    steps = [int(found.name) for found in folder.glob("*") if found.name.isdigit()]
    if not steps:
        return None
    leaves = (folder / str(max(steps)) / "leaves" / "metadata").read_bytes()
    return dict(step=max(steps), digest=hashlib.sha256(leaves).hexdigest()[:16])
