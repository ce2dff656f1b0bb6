"""Ordered classes by a cumulative link model (McCullagh 1980, "Regression models for ordinal
data"): one score per image, and K - 1 thresholds that all images share, as in CORAL (arXiv
1901.07884). Here the thresholds are in order by construction, so every class has a probability.

With the cumulative logits c_0 > c_1 > ..., P(class > k) = sigmoid(c_k). The gap between two of them
is softplus(GAIN (b_k - b_0)) for the biases b of the head. The loss is -log P(class).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.objectives import Constants, check_classes
from mae_jax.objectives.classes import Classes

GAIN = 32.0
"""Adam moves a bias by the learning rate at each step, and the score, a sum over all features, by
about as many times that as there are features. Without a gain the gaps would stay as they are while
the score grows, and the classes in the middle would lose their share.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ordered(Classes):
    """The objective; `make` documents the fields. Labels are indices in the order."""

    soft: ClassVar[bool] = False
    criterion: ClassVar[tuple[str, ...]] = ("ordered", "class_mae")

    @property
    def width(self) -> int:
        """Number of thresholds."""
        return self.classes - 1

    @property
    def biases(self) -> tuple[float, ...]:
        """With a score of 0 all classes have the same probability."""
        above = 1 - np.arange(1, self.classes) / self.classes  # P(class > k), [classes - 1]
        cumulative = np.log(above / (1 - above))
        widths = np.log(np.expm1(-np.diff(cumulative)))  # the inverse of softplus
        return tuple(cumulative[0] + np.append(0.0, widths / GAIN))

    def losses(self, outputs: jax.Array, labels: jax.Array, constants: Constants) -> jax.Array:
        """-log P(class) [...] of outputs [..., classes - 1] and classes [...]."""
        labels = jnp.broadcast_to(labels, outputs.shape[:-1])
        log = self.predictions(outputs, constants)  # [..., classes]
        losses = -jnp.take_along_axis(log, labels[..., None], axis=-1, mode="clip")[..., 0]
        return losses * constants["weights"][labels] if constants else losses

    def metrics(
        self, outputs: jax.Array, labels: jax.Array, constants: Constants
    ) -> dict[str, jax.Array]:
        """'top1': 1.0 where the most probable class is the label."""
        return super().metrics(self.predictions(outputs, constants), labels, constants)

    def linear(
        self, kernel: np.ndarray, bias: np.ndarray, constants: Constants
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """None: the probabilities are differences of sigmoids of one score."""
        return None

    def predictions(self, outputs: jax.Array, constants: Constants) -> jax.Array:
        """Log-probabilities [..., classes] of outputs [..., classes - 1]; as logits, softmax
        returns the probabilities themselves.
        """
        first = outputs[..., :1]
        widths = GAIN * (outputs[..., 1:] - first)  # [..., classes - 2], before softplus
        steps = jnp.cumsum(jax.nn.softplus(widths), axis=-1)
        cumulative = jnp.concatenate([first, first - steps], axis=-1)  # [..., classes - 1]
        above, below = jax.nn.log_sigmoid(cumulative), jax.nn.log_sigmoid(-cumulative)
        # With the cumulative logits a and b on its two sides, P(k) = sigmoid(a) - sigmoid(b)
        # = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), and 1 - exp(-softplus(x)) = sigmoid(x).
        inner = above[..., :-1] + below[..., 1:] + jax.nn.log_sigmoid(widths)
        return jnp.concatenate([below[..., :1], inner, above[..., -1:]], axis=-1)


def make(*, classes: int, class_weights: str = "none") -> Ordered:
    """Builds the objective.

    Args:
        classes: their number, at least 2, in the order of their labels.
        class_weights: 'none', or 'balanced': all classes count the same, whatever their numbers of
            training examples.

    Raises:
        UserError: a value that is not among those above.
    """
    check_classes(classes, class_weights, least=2)
    return Ordered(classes=classes, class_weights=class_weights)
