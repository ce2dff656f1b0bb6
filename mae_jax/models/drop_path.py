"""Stochastic depth (arXiv 1603.09382), shared by all encoders."""

from collections.abc import Callable

import jax


def drop_path(rng: Callable[[], jax.Array], branch: jax.Array, rate: float) -> jax.Array:
    """Drops a residual branch [B, ...] for random examples, and scales it by 1 / (1 - rate) for the
    others.

    Args:
        rng: returns a key; called only if the rate is not 0.
        rate: probability that an example's branch is dropped, in [0, 1).
    """
    if rate == 0:
        return branch
    shape = (len(branch),) + (1,) * (branch.ndim - 1)  # one draw per example: [B, 1, ..., 1]
    kept = jax.random.bernoulli(rng(), 1 - rate, shape)
    return branch * (kept / (1 - rate)).astype(branch.dtype)
