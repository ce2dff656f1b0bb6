"""Exponential moving averages of parameters, for teachers."""

from typing import Any

import jax


def move(average: Any, params: Any, rate: jax.Array | float) -> Any:
    """Moves an average towards the parameters.

    Args:
        average, params: pytrees of the same structure.
        rate: one minus the momentum, in [0, 1].
    """
    # Unlike m old + (1 - m) new, this form leaves frozen parameters exactly unchanged.
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, params)
