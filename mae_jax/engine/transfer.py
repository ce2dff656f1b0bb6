"""Parameters of one run as the start of another."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mae_jax.engine.checkpoint import read_params
from mae_jax.engine.paths import path_of
from mae_jax.types import Batch, Method, TrainState, UserError

Adapt = Callable[[str, np.ndarray], Any]
"""(path, array) -> the array for other images, or the same array if it does not depend on them."""


def transfer(params: Any, saved: Mapping[str, np.ndarray], *, missing: str, adapt: Adapt) -> Any:
    """Fills parameters with saved ones of the same paths; what else was saved is not used.

    Args:
        params: the fresh parameters, arrays or shapes with shardings.
        saved: path -> array.
        missing: regex of the paths that may keep their fresh values.
        adapt: fits arrays of another shape.

    Raises:
        UserError: a parameter that is not there, or of another shape: the checkpoint is of another
            architecture.
    """

    def fill(path, leaf):
        name = path_of(path)
        if name not in saved:
            if re.search(missing, name):
                return leaf
            raise UserError(
                f"the checkpoint has no {name}: it is of another architecture; it holds "
                f"{', '.join(sorted({path.split('/')[0] for path in saved}))}"
            )
        array = saved[name]
        if array.shape != leaf.shape:
            array = adapt(name, array)
        if array.shape != leaf.shape:
            raise UserError(
                f"the checkpoint is of another architecture: {name} is {list(array.shape)} there "
                f"and {list(leaf.shape)} here"
            )
        return jax.device_put(np.asarray(array, leaf.dtype), leaf.sharding)

    return jax.tree_util.tree_map_with_path(fill, params)


def make_start(
    *, path: str, method: Method, example: Batch, fresh: Callable[[], TrainState]
) -> Callable[[], TrainState]:
    """The init_from section: how the state before the first step is made.

    Args:
        path: workdir of the run whose parameters are taken, where they fit; empty: none.
        method, example, fresh: what is trained, a batch of it, and its fresh state.

    Raises:
        UserError: the method takes no parameters from other runs.
    """
    if not path:
        return fresh
    if not hasattr(method, "fresh"):
        raise UserError("config.init_from is for tasks, such as tasks.finetune: start afresh here")

    def start() -> TrainState:
        state, saved = fresh(), read_params(Path(path).expanduser() / "checkpoints")
        saved = {name: array for name, array in saved.items() if not re.search(method.fresh, name)}
        adapt = method.adapt(example["image"].shape[1:])
        missing = f"{method.fresh}|^encoder/positions$"
        params = transfer(state.params, saved, missing=missing, adapt=adapt)
        return state.replace(params=params, extra=method.after_update(params, state.extra, -1))

    return start
