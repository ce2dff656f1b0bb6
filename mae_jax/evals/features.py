"""Frozen features of a whole split, which the k-NN and logistic evaluators share."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np

from mae_jax.types import UserError

Predict = Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]]
"""A batch of this process' rows to outputs for the rows of all processes, 'features' among them."""


class EvalData(Protocol):
    """What evaluators need of the data; `mae_jax.data.Data` is one."""

    def eval(
        self, split: str, limit: int | None = None, then: str = ""
    ) -> Iterable[Mapping[str, np.ndarray]]:
        """Batches of a split, padded rows marked False in 'valid'."""


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """What the `make` of every evaluator returns: called with a `Predict` and the data, it gives
    metrics by name.
    """

    name: str
    run: Callable[[Predict, EvalData], dict[str, float]]
    output: str
    """Of the model, that it needs: 'features', 'logits' or 'head_logits'."""
    splits: Sequence[str]
    """Of the data, that must have labels."""
    examples: int = 1
    """So many of the split 'train' are needed, if it reads that one."""
    memory: Callable[[int, int, int], int] = lambda examples, width, classes: 0
    """Bytes of a device that it needs at least for its own computations, given the number of
    training examples, the width of the features, and the number of classes."""
    limit: int | None = None
    """It uses this many training examples only."""

    def __call__(self, predict: Predict, data: EvalData) -> dict[str, float]:
        """The metrics."""
        return self.run(predict, data)


def check_limit(name: str, limit: int | None) -> None:
    """Raises UserError unless a limit on the number of examples leaves any.

    Args:
        name: of the evaluator.
    """
    if limit is not None and limit < 1:
        raise UserError(
            f"{name}: limit={limit} must be at least 1; leave it out to use all examples"
        )


class Features(NamedTuple):
    """Features of a split."""

    features: np.ndarray
    """[N, D] float32."""
    labels: np.ndarray
    """[N] int32."""


@functools.lru_cache(maxsize=2)  # the evaluators of one evaluation ask for the same two splits
def extract(predict: Predict, data: EvalData, split: str, limit: int | None = None) -> Features:
    """The features of a labeled split, without the rows that only fill the last batch."""
    features, labels = [], []
    for batch in data.eval(split, limit):
        outputs = predict(batch)
        keep = np.asarray(outputs["valid"])
        features.append(np.asarray(outputs["features"], np.float32)[keep])
        labels.append(np.asarray(outputs["label"])[keep])
    return Features(np.concatenate(features), np.concatenate(labels))
