"""What an evaluator is, and the frozen features of a whole split, which several of them read."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from mae_jax.types import Batch, Metric, UserError

Predict = Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]]
"""A batch of this process' rows to outputs for the rows of all processes, and the fields of these
that the model does not read ('label', 'valid', ...)."""


class EvalData(Protocol):
    """What evaluators need of the data; `mae_jax.data.Data` is one."""

    def eval(
        self, split: str, limit: int | None = None, then: str = ""
    ) -> Iterable[Mapping[str, np.ndarray]]:
        """Batches of a split, padded rows marked False in 'valid'."""

    def source(self, split: str) -> Any:
        """The source of a split: `names` of classes by field, and the `name` of each example."""

    def sizes(self, split: str) -> np.ndarray:
        """[N, rank] sizes of the images of a split, not transformed."""

    def originals(
        self, split: str, batches: Sequence[Sequence[int]], batch_size: int
    ) -> Iterable[list[dict[str, Any] | None]]:
        """This process' rows of batches of examples that are not transformed, None on padding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """What the `make` of every evaluator returns: called with a `Predict` and the data, it gives
    metrics by name.
    """

    name: str
    run: Callable[[Predict, EvalData], dict[str, float]]
    """With `reduce`, what it predicts are the results of that."""
    outputs: tuple[str, ...]
    """Of the model, those that it reads: 'features', 'logits', ..."""
    needs: Mapping[str, tuple[str, ...]]
    """Split of the data -> fields that it reads, e.g. {'test': ('label',)}."""
    metrics: Mapping[str, Metric]
    """How each of its metrics is shown; those that are not in a result are ignored."""
    reduce: Callable[[Mapping[str, jax.Array], Batch], Any] | None = None
    """(outputs, batch) -> small arrays, on the devices: where outputs are too large to leave them,
    e.g. a confusion matrix of a batch. Rows whose batch['valid'] is False do not count."""
    adds: Callable[[Mapping[str, jax.ShapeDtypeStruct]], Mapping[str, jax.ShapeDtypeStruct]] = dict
    """Batch -> shapes of the fields that `run` adds to batches of the data for `reduce`."""
    baselines: bool = False
    """Whether to evaluate raw pixels and the encoder before training, too."""
    advice: str = ""
    """What to do about a model that does not have the outputs, for the message."""
    examples: int = 1
    """So many of the split 'train' are needed, if it reads that one."""
    memory: Callable[[int, int, int], int] = lambda examples, width, classes: 0
    """Bytes of a device that it needs at least for its own computations, given the number of
    training examples, the width of the features, and the number of classes."""
    limit: int | None = None
    """It uses this many training examples only."""

    def declared(self, name: str) -> Metric | None:
        """How a metric is shown; None: the evaluator has none of this name. A declaration of
        'part/*' is for all whose names begin with 'part/'.
        """
        family = f"{name.partition('/')[0]}/*"
        return self.metrics.get(name, self.metrics.get(family) if "/" in name else None)

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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shared:
    """The `Predict` that the evaluators of one evaluation share, so that they share passes too."""

    predict: Predict
    wanted: Mapping[str, frozenset[str]]
    """Split -> what any of them reads of it, outputs and fields."""

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, jax.Array]:
        """The outputs of a batch."""
        return self.predict(batch)


def shared(predict: Predict, evaluators: Sequence[Evaluator]) -> Shared:
    """A function for evaluators without `reduce`."""
    wanted: dict[str, frozenset[str]] = {}
    for evaluator in evaluators:
        for split, fields in evaluator.needs.items():
            wanted[split] = wanted.get(split, frozenset()).union(evaluator.outputs, fields)
    return Shared(predict=predict, wanted=wanted)


class Features(NamedTuple):
    """Features of a split."""

    features: np.ndarray
    """[N, D] float32."""
    labels: np.ndarray
    """[N] int32."""


@functools.lru_cache(maxsize=2)  # the evaluators of one evaluation ask for the same two splits
def read_split(
    predict: Predict, data: EvalData, split: str, limit: int | None = None
) -> dict[str, np.ndarray]:
    """What is predicted for a split, [N, ...] each, without the rows that only fill the last batch.
    Evaluators that share `predict` share the pass.
    """
    wanted = predict.wanted.get(split) if isinstance(predict, Shared) else None
    parts: dict[str, list[np.ndarray]] = {}
    for batch in data.eval(split, limit):
        outputs = predict(batch)
        valid = np.asarray(outputs["valid"])
        for name in outputs.keys() - {"valid"} if wanted is None else wanted:
            parts.setdefault(name, []).append(np.asarray(outputs[name])[valid])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def extract(predict: Predict, data: EvalData, split: str, limit: int | None = None) -> Features:
    """The features of a labeled split."""
    found = read_split(predict, data, split, limit)
    return Features(found["features"].astype(np.float32), found["label"])
