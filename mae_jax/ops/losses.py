"""The reconstruction losses of masked autoencoders (arXiv 2111.06377, sections 3 and 4.1)."""

import jax
import jax.numpy as jnp

from mae_jax.spec import check_choice

ERRORS = {"mse": jnp.square, "l1": jnp.abs}


def patch_statistics(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each patch, over all its pixels and channels.

    The variance is unbiased (divided by n - 1), plus 1e-6, as in the official code.

    Args:
        patches: [..., P].

    Returns:
        Mean and standard deviation, [..., 1] float32 each.
    """
    patches = patches.astype(jnp.float32)
    mean = patches.mean(axis=-1, keepdims=True)
    variance = patches.var(axis=-1, keepdims=True, ddof=1)
    return mean, jnp.sqrt(variance + 1e-6)


def normalize_patches(patches: jax.Array) -> jax.Array:
    """Normalizes each patch [..., P] to mean 0 and variance 1: MAE's target with norm_pix_loss."""
    mean, std = patch_statistics(patches)
    return (patches - mean) / std


def errors(prediction: jax.Array, target: jax.Array, kind: str) -> jax.Array:
    """Elementwise errors, float32, of the shape of both arrays.

    Args:
        kind: 'mse', squared difference, or 'l1', absolute difference.

    Raises:
        UserError: an unknown kind.
    """
    check_choice("loss", kind, ERRORS)
    return ERRORS[kind](prediction.astype(jnp.float32) - target.astype(jnp.float32))


def masked_mean(errors: jax.Array, scored: jax.Array) -> jax.Array:
    """Mean error over the scored entries of the whole batch.

    Args:
        errors: [B, L, P] float32, or another shape.
        scored: [B, L] bool or 0/1; in general, its shape is a prefix of that of `errors`.

    Returns:
        Scalar float32; 0 if nothing is scored.
    """
    # [B, L, 1]
    weights = scored.astype(jnp.float32).reshape(scored.shape + (1,) * (errors.ndim - scored.ndim))
    count = jnp.sum(weights) * (errors.size // max(1, weights.size))
    return jnp.sum(errors * weights) / jnp.maximum(count, 1)
