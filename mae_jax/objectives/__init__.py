"""What tasks learn about an image, one kind of label per file. Its `make(**options)` returns an
`Objective`.

A config selects one by a spec string: objective='multilabel(class_weights=balanced)'.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from mae_jax.spec import build, check_choice
from mae_jax.types import Batch, Extra, UserError

Constants = Any
"""A pytree of arrays that an objective computes from the training labels; {} if none."""

SAMPLE = 10_000
"""Training examples that constants are computed from, where a source does not hold the labels of
all its examples in memory; where it does, all count."""

BALANCING = ("none", "balanced")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective(abc.ABC):
    """Base class of objectives: the labels, the loss and the predictions of a linear head."""

    field: ClassVar[str]
    """Field of a batch that holds the labels."""
    output: ClassVar[str]
    """Name of the output that `predictions` returns."""
    soft: ClassVar[bool] = False
    """Whether the labels of two images can be mixed, and smoothed: `targets` is defined."""
    biases: ClassVar[tuple[float, ...]] = ()
    """Initial biases [width], if all outputs of the head are one score plus a bias for each; ():
    every output has its own weights."""
    criterion: ClassVar[tuple[str, ...]] = ()
    """(evaluator, its metric) that choose one of several heads, see `Method.criterion`; (): only
    one head can be trained."""
    lower_is_better: ClassVar[bool] = False
    """Whether the values of `metrics` are errors."""
    sample: ClassVar[int] = 0
    """Number of training labels that `constants` reads; 0: none."""

    classes: int
    """Number of classes, or of values in a regression."""

    @property
    def width(self) -> int:
        """Number of outputs of the head."""
        return self.classes

    @abc.abstractmethod
    def example(self) -> jax.ShapeDtypeStruct:
        """Shape [1, ...] and type of the labels of one example."""

    def initial(self) -> Constants:
        """Constants with their final shapes."""
        return {}

    def constants(self, labels: np.ndarray) -> Constants:
        """Computes constants from labels [N, ...] of training examples, once, outside of jit."""
        return {}

    def targets(self, labels: jax.Array, constants: Constants, smoothing: float) -> jax.Array:
        """Soft targets [B, T] float32 of labels [B, ...]. The loss is linear in them, so that a
        mixture of targets has the mixture of the losses.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def losses(self, outputs: jax.Array, labels: jax.Array, constants: Constants) -> jax.Array:
        """Losses [...] float32 of examples.

        Args:
            outputs: [..., width] of the head.
            labels: [..., *label] as in batches, or float32 soft targets [..., T].
            constants: of the training set.
        """

    def metrics(
        self, outputs: jax.Array, labels: jax.Array, constants: Constants
    ) -> dict[str, jax.Array]:
        """Values [...] of examples to log with the loss, by name; see `losses`."""
        return {}

    def linear(
        self, kernel: np.ndarray, bias: np.ndarray, constants: Constants
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The kernel [D, classes] and bias [classes] of the linear layer whose outputs are the
        predictions; None: they are no linear function of the features, and other packages have no
        such head.

        Args:
            kernel, bias: of the head, [D, width] and [width] float64.
            constants: of the training set.
        """
        return None

    @abc.abstractmethod
    def predictions(self, outputs: jax.Array, constants: Constants) -> jax.Array:
        """The prediction [B, ...] float32 that `Method.predict` returns, see `output`."""


def make_objective(spec: str, classes: int, mixing: Mapping[str, float] | None = None) -> Objective:
    """Builds the objective of a task.

    Args:
        spec: spec string, e.g. 'classes' or 'regression(error=absolute)'.
        classes: see `Objective`.
        mixing: options that change labels, by name; nonzero values need soft targets.

    Raises:
        UserError: an unknown objective or option, or one that the labels do not allow.
    """
    objective = build(spec, "objectives", Objective, classes=classes)
    changed = {name: value for name, value in (mixing or {}).items() if value}
    if changed and not objective.soft:
        shown = ", ".join(f"{name}={value}" for name, value in changed.items())
        raise UserError(
            f"objective {spec!r} cannot mix or smooth labels ({shown}): set "
            f"{', '.join(f'config.method.args.{name}=0.0' for name in changed)}"
        )
    return objective


def collections(objective: Objective) -> Extra:
    """The collections of a task for an objective: 'objective' if it has constants."""
    initial = objective.initial()
    return {"objective": initial} if initial else {}


def weighted(values: jax.Array, batch: Batch) -> jax.Array:
    """Values [B, ...] of examples times their 'weight' [B], if the batch has weights."""
    if "weight" not in batch:
        return values
    return values * batch["weight"].reshape(-1, *(1,) * (values.ndim - 1))  # [B, 1, ...]


def check_classes(classes: int, class_weights: str, least: int) -> None:
    """Raises UserError for too few classes, or unknown class weights."""
    check_choice("class_weights", class_weights, BALANCING)
    if classes < least:
        raise UserError(f"classes={classes} must be at least {least}")


def balanced(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Weights [...] float32 of classes, N / (K n) for n of N examples in one of K classes along the
    last axis: all classes count the same and the mean over the examples is 1, as in scikit-learn.
    A class without an example has the weight of a class with one.
    """
    counts = np.asarray(counts, np.float64)
    total = counts.sum(axis=-1, keepdims=True)
    return (total / (counts.shape[-1] * np.maximum(counts, 1))).astype(np.float32)
