"""Losses of segmentation: the mean cross-entropy of pixels or voxels, and with it the soft Dice
loss of classes (Milletari et al. 2016, arXiv 1606.04797), as nnU-Net adds them (Isensee et al.
2021, doi 10.1038/s41592-020-01008-z).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mae_jax.spec import call, check_choice, parse
from mae_jax.types import IGNORE

SMOOTH = 1e-5
"""Added to numerator and denominator of Dice, as in nnU-Net: 1 for a class that is nowhere."""

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""(logits [B, *space, K] float32, labels [B, *space] int) -> the loss of the batch, a scalar."""


def cross_entropy() -> Loss:
    """The mean cross-entropy over all pixels of the batch that have a class; 0 if none has."""

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        known = labels != IGNORE  # [B, *space]
        labels, count = jnp.where(known, labels, 0), jnp.maximum(known.sum(), 1)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(losses * known) / count

    return loss


def dice_cross_entropy(background: bool = False) -> Loss:
    """Cross-entropy plus 1 - the mean over classes of the soft Dice of the whole batch.

    Args:
        background: whether class 0 counts in Dice. Not by default, as in nnU-Net: background covers
            most voxels, so its Dice is close to 1 from the start and says little. The cross-entropy
            has all classes.
    """

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        true, logs = _one_hot(labels, logits.shape[-1]), jax.nn.log_softmax(logits)
        # A sum over classes, where `cross_entropy` picks one: its gradient is no scatter, which is
        # slow for millions of voxels.
        entropy = -jnp.sum(true * logs) / jnp.maximum((labels != IGNORE).sum(), 1)
        dice = _dice(jnp.exp(logs), true)[0 if background else 1 :]
        return entropy + 1 - dice.mean()

    return loss


def soft_dice(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Dice [K] float32 of the probabilities of each class over all pixels of a batch that have a
    class: twice the sum of the probabilities on the class, divided by the sum of all probabilities
    of the class plus its number of pixels.

    Args:
        logits: [B, *space, K].
        labels: [B, *space] int; `IGNORE` has no class.
    """
    return _dice(jax.nn.softmax(logits), _one_hot(labels, logits.shape[-1]))


def _one_hot(labels: jax.Array, classes: int) -> jax.Array:
    """[B, *space, K] float32, zeros where there is no class."""
    return jax.nn.one_hot(jnp.where(labels == IGNORE, -1, labels), classes)


def _dice(probabilities: jax.Array, true: jax.Array) -> jax.Array:
    """[K], see `soft_dice`; both [B, *space, K]."""
    axes = tuple(range(true.ndim - 1))
    known = true.sum(axis=-1, keepdims=True)  # 1 or 0
    common = jnp.sum(probabilities * true, axes)  # [K]
    predicted, labeled = jnp.sum(probabilities * known, axes), jnp.sum(true, axes, jnp.int32)
    return (2 * common + SMOOTH) / (predicted + labeled + SMOOTH)


LOSSES = {"cross_entropy": cross_entropy, "dice_cross_entropy": dice_cross_entropy}
"""Name -> function that returns the loss."""


def loss_of(kind: str) -> Loss:
    """The loss of a spec string: 'cross_entropy', 'dice_cross_entropy' or
    'dice_cross_entropy(background=True)'.

    Raises:
        UserError: an unknown kind or argument.
    """
    calls = parse(kind)
    check_choice("loss", calls[0].name if len(calls) == 1 else kind, LOSSES)
    return call(f"loss={kind}", LOSSES[calls[0].name], *calls[0].args, **calls[0].kwargs)
