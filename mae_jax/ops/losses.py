"""Losses of masked autoencoders: of the reconstruction (arXiv 2111.06377, sections 3 and 4.1), and
of the order of patches (arXiv 2304.05919).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mae_jax.spec import call, check_choice, parse
from mae_jax.types import UserError


def smooth_l1(beta: float = 2.0) -> Callable[[jax.Array], jax.Array]:
    """The loss of data2vec (arXiv 2202.03555): d^2 / (2 beta) up to a difference d of `beta`, and
    |d| - beta / 2 above.

    Raises:
        UserError: no positive `beta`.
    """
    if beta <= 0:
        raise UserError(f"smooth_l1(beta={beta}) must be positive: l1 is its limit for beta=0")

    def error(difference: jax.Array) -> jax.Array:
        size = jnp.abs(difference)
        return jnp.where(size < beta, 0.5 * jnp.square(difference) / beta, size - 0.5 * beta)

    return error


ERRORS = {"mse": lambda: jnp.square, "l1": lambda: jnp.abs, "smooth_l1": smooth_l1}
"""Name -> function that returns the error as a function of the difference."""


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


def channel_statistics(patches: jax.Array, channels: int) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each channel of each patch, over its pixels, as in VideoMAE.

    The variance is unbiased, and 1e-6 is added to its root.

    Args:
        patches: [..., P * C], channels innermost.
        channels: C.

    Returns:
        Mean and standard deviation, [..., 1, C] float32 each.
    """
    x = patches.astype(jnp.float32).reshape(*patches.shape[:-1], -1, channels)  # [..., P, C]
    mean = x.mean(axis=-2, keepdims=True)
    return mean, jnp.sqrt(x.var(axis=-2, keepdims=True, ddof=1)) + 1e-6


def normalize_channels(patches: jax.Array, channels: int) -> jax.Array:
    """Normalizes each channel of each patch [..., P * C], in [0, 1], to mean 0 and variance 1."""
    mean, std = channel_statistics(patches, channels)
    x = patches.astype(jnp.float32).reshape(*patches.shape[:-1], -1, channels)  # [..., P, C]
    return ((x - mean) / std).reshape(patches.shape)


def error_of(kind: str) -> Callable[[jax.Array], jax.Array]:
    """The elementwise error as a function of the difference between prediction and target.

    Args:
        kind: spec string: 'mse', squared difference; 'l1', absolute difference; or
            'smooth_l1(beta=2.0)'.

    Raises:
        UserError: an unknown kind or argument.
    """
    calls = parse(kind)
    check_choice("loss", calls[0].name if len(calls) == 1 else kind, ERRORS)
    return call(f"loss={kind}", ERRORS[calls[0].name], *calls[0].args, **calls[0].kwargs)


def errors(prediction: jax.Array, target: jax.Array, kind: str) -> jax.Array:
    """Elementwise errors, float32, of the shape of both arrays; for `kind` see `error_of`."""
    return error_of(kind)(prediction.astype(jnp.float32) - target.astype(jnp.float32))


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


def pairwise_order(prediction: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Binary cross-entropy of the order of two patches of an image: sigmoid(p_i - p_j) is the
    predicted probability that patch i has the larger target (the relative loss of HPM, arXiv
    2304.05919, section 3.2).

    Args:
        prediction: [B, K].
        target: [B, K], without gradients.

    Returns:
        The mean over all pairs with different targets in the batch, 0 if there are none; and the
        fraction of these pairs that the prediction orders correctly. Scalars float32.
    """
    prediction, target = (x.astype(jnp.float32) for x in (prediction, target))
    differences = prediction[:, :, None] - prediction[:, None, :]  # [B, K, K], of i and j
    larger = target[:, :, None] > target[:, None, :]  # each pair once: (i, j) or (j, i)
    entropy = jax.nn.softplus(-differences)  # -log sigmoid
    return masked_mean(entropy, larger), masked_mean((differences > 0).astype(jnp.float32), larger)
