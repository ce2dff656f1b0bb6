"""The reconstruction losses of masked autoencoders (arXiv 2111.06377, sections 3 and 4.1)."""

import jax
import jax.numpy as jnp

from mae_jax.types import UserError

ERRORS = {"mse": jnp.square, "l1": jnp.abs}


def patch_statistics(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each patch, over its pixels and channels together.

    The variance is the unbiased one (divided by n - 1) plus 1e-6, as in the official code.

    Args:
        patches: [..., P].

    Returns:
        two arrays [..., 1], float32.
    """
    patches = patches.astype(jnp.float32)
    mean = patches.mean(axis=-1, keepdims=True)
    variance = patches.var(axis=-1, keepdims=True, ddof=1)
    return mean, jnp.sqrt(variance + 1e-6)


def normalize_patches(patches: jax.Array) -> jax.Array:
    """The per-patch normalised target: [..., P] with mean 0 and variance 1 in every patch."""
    mean, std = patch_statistics(patches)
    return (patches - mean) / std


def masked_error(
    prediction: jax.Array,
    target: jax.Array,
    hidden: jax.Array,
    *,
    error: str = "mse",
    reduction: str = "mean",
) -> jax.Array:
    """Reconstruction error of the hidden places.

    Args:
        prediction, target: [B, L, P] patches, or any shape that `hidden` leads.
        hidden: bool or 0/1, the leading axes of `target` or all of them; True = scored. All True
            scores everything.
        error: 'mse' squared or 'l1' absolute difference.
        reduction: 'mean' over the scored places of the whole batch, or 'sum' over them and mean
            over the batch.

    Returns:
        Scalar float32; 0 if nothing is hidden.

    Raises:
        UserError: unknown error or reduction.
    """
    if error not in ERRORS:
        raise UserError(f"loss {error!r} is unknown: choose {', '.join(ERRORS)}")
    if reduction not in ("mean", "sum"):
        raise UserError(f"reduction {reduction!r} is unknown: choose mean, sum")
    difference = ERRORS[error](prediction.astype(jnp.float32) - target.astype(jnp.float32))
    weights = hidden.astype(jnp.float32).reshape(hidden.shape + (1,) * (target.ndim - hidden.ndim))
    total = jnp.sum(difference * weights)
    if reduction == "sum":
        return total / len(target)
    places = jnp.sum(weights) * (target.size // max(1, weights.size))
    return total / jnp.maximum(places, 1)
