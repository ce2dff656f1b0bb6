"""Several classes per image: one sigmoid and binary cross-entropy per class. Entries of 255 are
unknown and count for nothing.

The loss is the sum over the known entries, divided by the number of all entries of the batch. So
every known entry has the same weight in any batch, and the loss of a batch is the mean of its
microbatches.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.objectives import SAMPLE, Constants, Objective, balanced, check_classes
from mae_jax.types import IGNORE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Multilabel(Objective):
    """The objective; `make` documents the fields."""

    field: ClassVar[str] = "labels"
    output: ClassVar[str] = "multilabel_logits"
    soft: ClassVar[bool] = True
    criterion: ClassVar[tuple[str, ...]] = ("multilabel", "average_precision")

    class_weights: str = "none"

    @property
    def sample(self) -> int:
        """Labels are read for class weights only."""
        return SAMPLE if self.class_weights == "balanced" else 0

    def example(self) -> jax.ShapeDtypeStruct:
        """[1, classes] uint8."""
        return jax.ShapeDtypeStruct((1, self.classes), np.uint8)

    def initial(self) -> Constants:
        """'weights' [2, classes], of absent and of present classes."""
        return {"weights": jnp.ones((2, self.classes))} if self.sample else {}

    def constants(self, labels: np.ndarray) -> Constants:
        """Weights from labels [N, classes]: in each class the known entries of both kinds count the
        same.
        """
        counts = np.stack([(labels == 0).sum(axis=0), (labels == 1).sum(axis=0)], axis=-1)
        return {"weights": balanced(counts).T}

    def targets(self, labels: jax.Array, constants: Constants, smoothing: float) -> jax.Array:
        """[B, 2 * classes]: factors of -log(1 - p) of all classes, then those of -log p; both are 0
        if the entry is unknown.
        """
        present, known = labels == 1, labels != IGNORE
        share = present * (1 - smoothing) + smoothing / 2  # [B, classes] float32
        targets = jnp.stack([1 - share, share], axis=1) * known[:, None]  # [B, 2, classes]
        if constants:
            weights = constants["weights"]
            targets = targets * jnp.where(present, weights[1], weights[0])[:, None]
        return targets.reshape(len(labels), -1)

    def losses(self, outputs: jax.Array, labels: jax.Array, constants: Constants) -> jax.Array:
        """Losses [...] of logits [..., classes], as means over all classes."""
        if not jnp.issubdtype(labels.dtype, jnp.floating):
            flat = self.targets(labels.reshape(-1, self.classes), constants, 0.0)
            labels = flat.reshape(*labels.shape[:-1], -1)  # [..., 2 * classes]
        absent, present = jnp.split(labels, 2, axis=-1)
        losses = absent * jax.nn.softplus(outputs) + present * jax.nn.softplus(-outputs)
        return losses.mean(axis=-1)

    def linear(
        self, kernel: np.ndarray, bias: np.ndarray, constants: Constants
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The head as it is."""
        return kernel, bias

    def predictions(self, outputs: jax.Array, constants: Constants) -> jax.Array:
        """Logits [B, classes], each of its own."""
        return outputs


def make(*, classes: int, class_weights: str = "none") -> Multilabel:
    """Builds the objective.

    Args:
        classes: their number, at least 1.
        class_weights: 'none', or 'balanced': in each class, images with and without it count the
            same, whatever their numbers.

    Raises:
        UserError: a value that is not among those above.
    """
    check_classes(classes, class_weights, least=1)
    return Multilabel(classes=classes, class_weights=class_weights)
