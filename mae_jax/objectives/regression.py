"""Numbers: squared or absolute error of values that are standardized by the mean and the standard
deviation of the training set. Predictions are in the units of the field.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mae_jax.objectives import SAMPLE, Constants, Objective
from mae_jax.spec import check_choice
from mae_jax.types import UserError

ERRORS = ("squared", "absolute")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Objective):
    """The objective; `make` documents the fields."""

    field: ClassVar[str] = "value"
    output: ClassVar[str] = "prediction"
    sample: ClassVar[int] = SAMPLE
    criterion: ClassVar[tuple[str, ...]] = ("regression", "r2")
    lower_is_better: ClassVar[bool] = True

    error: str

    def example(self) -> jax.ShapeDtypeStruct:
        """[1] float32, or [1, classes] of several values."""
        return jax.ShapeDtypeStruct((1,) if self.classes == 1 else (1, self.classes), np.float32)

    def initial(self) -> Constants:
        """'mean' and 'std' [classes]."""
        return {"mean": jnp.zeros(self.classes), "std": jnp.ones(self.classes)}

    def constants(self, labels: np.ndarray) -> Constants:
        """Mean and standard deviation of values [N] or [N, classes]; 1 for a constant value.

        Raises:
            UserError: a value is not a finite number.
        """
        values = np.asarray(labels, np.float64).reshape(-1, self.classes)  # [N, classes]
        if not np.isfinite(values).all():
            raise UserError(
                "values of the training set are not finite: leave these examples out of the table"
            )
        std = values.std(axis=0)
        return {"mean": values.mean(axis=0), "std": np.where(std > 0, std, 1.0)}

    def losses(self, outputs: jax.Array, labels: jax.Array, constants: Constants) -> jax.Array:
        """Errors [...] of outputs [..., classes], means over the values."""
        error = outputs - (self._rows(labels) - constants["mean"]) / constants["std"]
        return (jnp.square(error) if self.error == "squared" else jnp.abs(error)).mean(axis=-1)

    def metrics(
        self, outputs: jax.Array, labels: jax.Array, constants: Constants
    ) -> dict[str, jax.Array]:
        """'mae' [...]: absolute error in the units of the field, the mean over the values."""
        error = self.predictions(outputs, constants) - self._rows(labels)
        return {"mae": jnp.abs(error).mean(axis=-1)}

    def linear(
        self, kernel: np.ndarray, bias: np.ndarray, constants: Constants
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The head with its outputs in the units of the field."""
        std = np.asarray(constants["std"], np.float64)
        return kernel * std, bias * std + np.asarray(constants["mean"], np.float64)

    def predictions(self, outputs: jax.Array, constants: Constants) -> jax.Array:
        """Values [B, classes] in the units of the field."""
        return outputs * constants["std"] + constants["mean"]

    def _rows(self, labels: jax.Array) -> jax.Array:
        """Values [..., classes] of a batch, where one value per example has no axis of its own."""
        return labels[..., None] if self.classes == 1 else labels


def make(*, classes: int, error: str = "squared") -> Regression:
    """Builds the objective.

    Args:
        classes: number of values per example, at least 1.
        error: 'squared', or 'absolute', which outliers move less.

    Raises:
        UserError: a value that is not among those above.
    """
    check_choice("error", error, ERRORS)
    if classes < 1:
        raise UserError(f"classes={classes} must be the number of values, at least 1")
    return Regression(classes=classes, error=error)
