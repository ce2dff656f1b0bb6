"""What a figure is, and what it may draw from."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib.figure
import numpy as np

from mae_jax.evals.features import EvalData, Predict
from mae_jax.types import Method, Metric


class FigureContext(NamedTuple):
    """A run and its state, as figures see them; the same in all processes."""

    method: Method
    step: int
    """Steps done."""
    folder: Path
    """Where files go; it is there."""
    lines: Sequence[Mapping[str, float]]
    """Of metrics.jsonl so far."""
    results: Mapping[str, Mapping[str, float]]
    """Representation -> metric -> value after these steps; the last one is the run's own. {}: not
    evaluated yet. The first process has them, others may not: draw by them, and predict without."""
    metrics: Mapping[str, Metric]
    """Declarations of the metrics in results and lines."""
    data: EvalData
    predict: Callable[[Sequence[str]], Predict]
    """Outputs -> function of a batch that computes these."""
    pictures: Callable[[int, int], dict[str, np.ndarray]]
    """(count, seed) -> the method's pictures of the first held-out images, each
    [count, *space, C] uint8, in the order in which they are drawn; `seed` is of the masks."""


def draws_always(method: Method) -> str | None:
    """The `check` of figures of any method."""
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """What the `make` of every figure returns."""

    name: str
    files: tuple[str, ...]
    """The names of those that it writes."""
    draw: Callable[[FigureContext], list[Path]]
    """Writes the files, see `save`, and returns their paths. Called in all processes."""
    check: Callable[[Method], str | None] = draws_always
    """Why there is nothing to draw for a method; None: there is something."""
    log: Callable[[FigureContext], tuple[np.ndarray, str]] | None = None
    """A picture for TensorBoard at each evaluation, [H, W, 3] uint8, and Markdown that says what it
    shows. Called in all processes."""


def save(figure: matplotlib.figure.Figure, path: Path) -> Path:
    """Writes a picture, in the first process. Returns `path`."""
    if jax.process_index() == 0:
        figure.savefig(path)
    return path
