"""The reconstruction losses of masked autoencoders (arXiv 2111.06377, sections 3 and 4.1)."""

import jax
import jax.numpy as jnp

from mae_jax.spec import check_choice

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
    """The per-patch normalized target: [..., P] with mean 0 and variance 1 in every patch."""
    mean, std = patch_statistics(patches)
    return (patches - mean) / std


def errors(prediction: jax.Array, target: jax.Array, kind: str) -> jax.Array:
    """Errors of single values, float32, of the shape of both arrays.

    Args:
        kind: 'mse' squared or 'l1' absolute difference.

    Raises:
        UserError: an unknown kind.
    """
    check_choice("loss", kind, ERRORS)
    return ERRORS[kind](prediction.astype(jnp.float32) - target.astype(jnp.float32))


def masked_mean(errors: jax.Array, scored: jax.Array) -> jax.Array:
    """Mean error of the scored places of the whole batch.

    Args:
        errors: [B, L, P] float32, or any shape that `scored` leads.
        scored: bool or 0/1, the leading axes of `errors` or all of them.

    Returns:
        Scalar float32; 0 if nothing is scored.
    """
    weights = scored.astype(jnp.float32).reshape(scored.shape + (1,) * (errors.ndim - scored.ndim))
    places = jnp.sum(weights) * (errors.size // max(1, weights.size))
    return jnp.sum(errors * weights) / jnp.maximum(places, 1)
