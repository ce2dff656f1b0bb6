"""Initializes parameters from saved ones."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mae_jax.rules import path_of
from mae_jax.types import Adapt, UserError


def transfer(
    params: Any, saved: Mapping[str, np.ndarray], *, missing: str, adapt: Adapt, where: str = ""
) -> Any:
    """Replaces parameters by saved ones of the same paths; other saved arrays are ignored.

    Args:
        params: the initial parameters, arrays or shapes with shardings.
        saved: path -> array.
        missing: regex of the paths that may keep their initial values.
        adapt: (path, array) -> array for this run's images. Called for arrays of the right shape
            too, as the same number of patches may form another grid.
        where: prefix of the paths in messages.

    Raises:
        UserError: a parameter is missing or of another shape: the checkpoint is of another
            architecture.
    """

    def fill(path, leaf):
        name = path_of(path)
        if name not in saved:
            if re.search(missing, name):
                return leaf
            raise UserError(
                f"the checkpoint has no {where}{name}: it is of another architecture; it holds "
                f"{', '.join(sorted({path.split('/')[0] for path in saved}))}"
            )
        array = adapt(name, saved[name])
        if array.shape != leaf.shape:
            raise UserError(
                f"the checkpoint is of another architecture: {where}{name} is "
                f"{list(array.shape)} there and {list(leaf.shape)} here"
            )
        return jax.device_put(np.asarray(array, leaf.dtype), leaf.sharding)

    return jax.tree_util.tree_map_with_path(fill, params)
