"""Stochastic depth (arXiv 1603.09382), of all encoders."""

from collections.abc import Callable

import jax


def drop_path(rng: Callable[[], jax.Array], branch: jax.Array, rate: float) -> jax.Array:
    """A branch [B, ...] of a residual network, zero for a share of the examples and scaled up for
    the others.

    Args:
        rng: gives a key; only called if the rate is not 0.
        rate: in [0, 1).
    """
    if rate == 0:
        return branch
    shape = (len(branch),) + (1,) * (branch.ndim - 1)
    kept = jax.random.bernoulli(rng(), 1 - rate, shape)
    return branch * (kept / (1 - rate)).astype(branch.dtype)
