"""Losses of segmentation against loops in float64."""

import jax
import numpy as np
import pytest

from mae_jax.ops.dice import loss_of, soft_dice
from mae_jax.types import UserError

rng = np.random.default_rng(0)
LOGITS = rng.normal(size=(2, 3, 4, 5, 4)).astype(np.float32)
LABELS = rng.choice([0, 1, 3, 255], (2, 3, 4, 5))  # none is of class 2


def expected(labels, background):
    """Cross-entropy and Dice, voxel by voxel."""
    entropy, common, predicted, labeled = [], np.zeros(4), np.zeros(4), np.zeros(4)
    for at in np.ndindex(labels.shape):
        if labels[at] == 255:
            continue
        row = LOGITS[at].astype(np.float64)
        shares = np.exp(row) / np.exp(row).sum()
        entropy.append(-np.log(shares[labels[at]]))
        for k in range(4):
            predicted[k] += shares[k]
            labeled[k] += labels[at] == k
            common[k] += shares[k] * (labels[at] == k)
    dice = [(2 * c + 1e-5) / (p + t + 1e-5) for c, p, t in zip(common, predicted, labeled)]
    chosen = dice if background else dice[1:]
    return np.mean(entropy), 1 - np.mean(chosen), dice


@pytest.mark.parametrize("background", [False, True])
def test_losses_are_those_of_loops(background):
    entropy, dice, classes = expected(LABELS, background)
    both = jax.jit(
        lambda logits, labels: (
            loss_of("cross_entropy")(logits, labels),
            loss_of(f"dice_cross_entropy(background={background})")(logits, labels),
            soft_dice(logits, labels),
        )
    )
    first, second, found = both(LOGITS, LABELS)
    np.testing.assert_allclose(first, entropy, rtol=1e-6)
    np.testing.assert_allclose(second, entropy + dice, rtol=1e-6)
    np.testing.assert_allclose(found, classes, rtol=1e-5)
    assert classes[2] < 1e-5 < classes[1]
    nothing = both(LOGITS, np.full_like(LABELS, 255))
    assert float(nothing[0]) == 0 and abs(float(nothing[1])) < 1e-6


def test_perfect_predictions_cost_nothing():
    labels = np.where(LABELS == 255, 1, LABELS)
    found = loss_of("dice_cross_entropy")(200 * np.eye(4, dtype=np.float32)[labels], labels)
    assert abs(float(found)) < 1e-6


@pytest.mark.parametrize("kind", ["dice", "dice_cross_entropy(smooth=1)", "cross_entropy|dice"])
def test_other_losses_are_refused(kind):
    with pytest.raises(UserError, match="cross_entropy"):
        loss_of(kind)
