"""One class per image: softmax cross-entropy, also with soft targets (arXiv 1512.00567, section 7).

With `class_weights` the loss of an example is multiplied by the weight of its class, and the sum is
divided by the size of the batch. PyTorch divides by the sum of the weights in the batch, which
would make the loss of a batch differ from the mean over its microbatches.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mae_jax.objectives import SAMPLE, Constants, Objective, balanced, check_classes
from mae_jax.ops.augment import soft_targets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes(Objective):
    """The objective; `make` documents the fields."""

    field: ClassVar[str] = "label"
    output: ClassVar[str] = "logits"
    soft: ClassVar[bool] = True
    criterion: ClassVar[tuple[str, ...]] = ("classify", "top1")

    class_weights: str = "none"

    @property
    def sample(self) -> int:
        """Labels are read for class weights only."""
        return SAMPLE if self.class_weights == "balanced" else 0

    def example(self) -> jax.ShapeDtypeStruct:
        """[1] int32."""
        return jax.ShapeDtypeStruct((1,), np.int32)

    def initial(self) -> Constants:
        """'weights' [classes]."""
        return {"weights": jnp.ones(self.classes)} if self.sample else {}

    def constants(self, labels: np.ndarray) -> Constants:
        """Weights of the classes from labels [N]; negative labels, of no class, are skipped."""
        counts = np.bincount(labels[labels >= 0], minlength=self.classes)[: self.classes]
        return {"weights": balanced(counts)}

    def targets(self, labels: jax.Array, constants: Constants, smoothing: float) -> jax.Array:
        """[B, classes]: probabilities, times the weight of the class of the example."""
        targets = soft_targets(labels, self.classes, smoothing)
        return targets * constants["weights"][labels][:, None] if constants else targets

    def losses(self, outputs: jax.Array, labels: jax.Array, constants: Constants) -> jax.Array:
        """Cross-entropies [...] of logits [..., classes] and classes [...] or soft targets."""
        if jnp.issubdtype(labels.dtype, jnp.floating):
            return -jnp.sum(labels * jax.nn.log_softmax(outputs), axis=-1)
        labels = jnp.broadcast_to(labels, outputs.shape[:-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return losses * constants["weights"][labels] if constants else losses

    def metrics(
        self, outputs: jax.Array, labels: jax.Array, constants: Constants
    ) -> dict[str, jax.Array]:
        """'top1': 1.0 where the largest logit is that of the class with the largest target."""
        if jnp.issubdtype(labels.dtype, jnp.floating):
            labels = jnp.argmax(labels, axis=-1)
        return {"top1": (jnp.argmax(outputs, axis=-1) == labels).astype(jnp.float32)}

    def linear(
        self, kernel: np.ndarray, bias: np.ndarray, constants: Constants
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The head as it is."""
        return kernel, bias

    def predictions(self, outputs: jax.Array, constants: Constants) -> jax.Array:
        """Logits [B, classes]."""
        return outputs


def make(*, classes: int, class_weights: str = "none") -> Classes:
    """Builds the objective.

    Args:
        classes: their number, at least 2.
        class_weights: 'none', or 'balanced': all classes count the same, whatever their numbers of
            training examples.

    Raises:
        UserError: a value that is not among those above.
    """
    check_classes(classes, class_weights, least=2)
    return Classes(classes=classes, class_weights=class_weights)
