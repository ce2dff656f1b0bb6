"""Frozen features of a whole split, which the k-NN and logistic evaluators share."""

import functools
from collections.abc import Callable, Iterable, Mapping
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
        """Batches of a split, padded rows marked False in 'mask'."""


class Features(NamedTuple):
    """Features of a split."""

    features: np.ndarray
    """[N, D] float32."""
    labels: np.ndarray
    """[N] int32."""


@functools.lru_cache(maxsize=2)  # the evaluators of one evaluation ask for the same two splits
def extract(predict: Predict, data: EvalData, split: str, limit: int | None = None) -> Features:
    """The features of a labelled split, without the rows that only fill the last batch.

    Raises:
        UserError: the split has no labels.
    """
    features, labels = [], []
    for batch in data.eval(split, limit):
        if "label" not in batch:
            raise UserError(
                f"the {split} split has no labels, which k-NN and logistic need: give "
                "a folder with one sub-folder for each class"
            )
        outputs = predict(batch)
        keep = np.asarray(outputs["mask"])
        features.append(np.asarray(outputs["features"], np.float32)[keep])
        labels.append(np.asarray(outputs["label"])[keep])
    return Features(np.concatenate(features), np.concatenate(labels))
