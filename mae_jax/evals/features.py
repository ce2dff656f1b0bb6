"""The `Evaluator` type, and frozen features of a whole split, computed once for all evaluators."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from mae_jax.types import Batch, Method, Metric, UserError

Predict = Callable[[Mapping[str, np.ndarray]], Mapping[str, jax.Array]]
"""A batch with this process's rows -> the model's outputs for the global batch, and those of its
fields that the model does not read ('label', 'valid', ...)."""

Measure = Callable[[np.ndarray], dict[str, float]]
"""Weights [N] float64 of the examples -> metric -> value, NaN if it is undefined."""


class EvalData(Protocol):
    """The data that evaluators iterate over; `mae_jax.data.Data` implements it."""

    on_error: str
    """'raise' or 'skip' for examples that cannot be read."""

    def eval(
        self, split: str, limit: int | None = None, then: str = "", shuffled: bool = False
    ) -> Iterable[Mapping[str, np.ndarray]]:
        """Batches of a split; 'valid' is False on padding rows.

        Args:
            limit: maximum number of examples; None: all.
            then: spec string of more transforms, e.g. 'corruption(fog, severity=3)'.
            shuffled: whether to read the split in a fixed random order, so that each batch has
                examples from anywhere in it.
        """

    def example(self, stage: str, split: str = "train") -> Mapping[str, np.ndarray]:
        """A batch of one example, with the transforms of a stage, 'train' or 'eval'."""

    def source(self, split: str) -> Any:
        """The source of a split: `names` of classes by field, and the `name` of each example."""

    def sizes(self, split: str) -> np.ndarray:
        """[N, rank] sizes of the images of a split, not transformed."""

    def originals(
        self, split: str, batches: Sequence[Sequence[int]], batch_size: int, decoded: bool = True
    ) -> Iterable[list[dict[str, Any] | None]]:
        """This process' rows of batches of examples that are not transformed, None on padding.

        Args:
            decoded: False: images stay as the source has them, and volumes are only opened.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """An evaluator, as every `make` returns it. Called with a `Predict` and the data, it returns
    metric -> value.
    """

    name: str
    run: Callable[[Predict, EvalData], dict[str, float]]
    """(predict, data) -> metric -> value. With `reduce`, `predict` returns its results."""
    outputs: tuple[str, ...]
    """Outputs of the model that it reads: 'features', 'logits', ..."""
    needs: Mapping[str, tuple[str, ...]]
    """Split of the data -> fields that it reads, e.g. {'test': ('label',)}."""
    metrics: Mapping[str, Metric]
    """Metric -> how it is shown; 'part/*' declares all of 'part/NAME'. Metrics that are missing
    from a result are ignored."""
    reduce: Callable[[Mapping[str, jax.Array], Batch], Any] | None = None
    """(outputs, batch) -> small arrays, computed on the devices where the outputs are too large to
    copy to the host, e.g. a confusion matrix. It must ignore rows where batch['valid'] is False."""
    adds: Callable[[Mapping[str, jax.ShapeDtypeStruct]], Mapping[str, jax.ShapeDtypeStruct]] = dict
    """Batch -> shapes of the fields that `run` adds to batches of the data for `reduce`."""
    class_names: bool = True
    """Whether it needs the names of the classes of 'label', if it reads that field."""
    baselines: bool = False
    """Whether to evaluate raw pixels and the encoder before training, too."""
    advice: str = ""
    """The way out where the model lacks the outputs, for the error message."""
    examples: int = 1
    """Minimum number of training examples, if it reads the split 'train'."""
    memory: Callable[[int, int, int], int] = lambda examples, width, classes: 0
    """(training examples, width of the features, classes) -> bytes of device memory that its own
    computations need at least."""
    limit: int | None = None
    """Maximum number of training examples that it uses; None: all."""
    measure: Callable[[np.ndarray, np.ndarray, Sequence[str]], Measure] | None = None
    """(predictions [N, ...], labels [N, ...], names of the classes) -> their `Measure`, for an
    evaluator of one output against one field; None: it has no such function."""
    for_method: Callable[[Method], "Evaluator"] | None = None
    """Method -> the evaluator for it, where outputs and fields depend on what it learns."""

    def __call__(self, predict: Predict, data: EvalData) -> dict[str, float]:
        """The metrics."""
        return self.run(predict, data)


def check_limit(name: str, limit: int | None) -> None:
    """Raises UserError if a limit on the number of examples leaves none.

    Args:
        name: of the evaluator.
    """
    if limit is not None and limit < 1:
        raise UserError(
            f"{name}: limit={limit} must be at least 1; leave it out to use all examples"
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shared:
    """A `Predict` that the evaluators of one evaluation share: each split is predicted once."""

    predict: Predict
    wanted: Mapping[str, frozenset[str]]
    """Split -> outputs and fields that any of the evaluators reads, besides `ALSO`."""

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, jax.Array]:
        """The outputs of a batch."""
        return self.predict(batch)


def shared(predict: Predict, evaluators: Sequence[Evaluator]) -> Shared:
    """The `Predict` for evaluators without `reduce`."""
    wanted: dict[str, frozenset[str]] = {}
    for evaluator in evaluators:
        for split, fields in evaluator.needs.items():
            wanted[split] = wanted.get(split, frozenset()).union(evaluator.outputs, fields)
    return Shared(predict=predict, wanted=wanted)


ALSO = frozenset(("group",))
"""Fields that evaluators read where the data have them."""


class Features(NamedTuple):
    """Features of a split."""

    features: np.ndarray
    """[N, D] float32."""
    labels: np.ndarray
    """[N, ...] of the field that was asked for."""


@functools.lru_cache(maxsize=2)  # the evaluators of one evaluation ask for the same two splits
def read_split(
    predict: Predict, data: EvalData, split: str, limit: int | None = None
) -> dict[str, np.ndarray]:
    """Outputs and fields of a split, [N, ...] each, without padding rows. Evaluators that share
    `predict` share the pass over the data.
    """
    wanted = predict.wanted.get(split) if isinstance(predict, Shared) else None
    parts: dict[str, list[np.ndarray]] = {}
    for batch in data.eval(split, limit):
        outputs = predict(batch)
        valid = np.asarray(outputs["valid"])
        for name in outputs.keys() - {"valid"} if wanted is None else wanted | ALSO & {*outputs}:
            parts.setdefault(name, []).append(np.asarray(outputs[name])[valid])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def extract(
    predict: Predict,
    data: EvalData,
    split: str,
    limit: int | None = None,
    *,
    output: str = "features",
    field: str = "label",
) -> Features:
    """The features of a labeled split.

    Args:
        limit: maximum number of examples; None: all.
        output: the model's output to use as features, see `types.layer_output`.
        field: of the labels.

    Raises:
        UserError: a feature is not finite.
    """
    outputs = read_split(predict, data, split, limit)
    check_finite(output, outputs[output])
    return Features(outputs[output].astype(np.float32), outputs[field])


def check_finite(output: str, values: np.ndarray) -> None:
    """Checks that an output [N, ...] of a model is finite: comparisons with NaN are always False,
    so a metric may be perfect.

    Raises:
        UserError: it is not.
    """
    rows = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))  # [N]
    if rows.any():
        raise UserError(
            f"{output}: of {len(rows)} examples, {rows.sum()} have a value that is not finite: the "
            "weights are damaged, or their training has diverged"
        )


LAYERED = "layer and pool are for methods whose encoder returns its layers, as vit does"
"""Advice of evaluators of features, where a method has no layers."""


def layered(names: Iterable[str], layer: int | None, pool: str) -> dict[str, str]:
    """Metrics of an evaluator -> their names for features of a layer: 'knn' -> 'knn_layer_2_cls'.

    Args:
        layer, pool: see `types.layer_output`.
    """
    end = ("" if layer is None else f"_layer_{layer}") + (f"_{pool}" if pool else "")
    return {name: f"{name}{end}" for name in names}
