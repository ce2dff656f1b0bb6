"""The `Figure` type, and the context that figures draw from."""

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
    """A run and its state, for figures; the same in all processes but for `results`."""

    method: Method
    step: int
    """Steps done."""
    folder: Path
    """An existing folder for the files."""
    lines: Sequence[Mapping[str, float]]
    """Lines of metrics.jsonl so far."""
    results: Mapping[str, Mapping[str, float]]
    """Representation -> metric -> value after these steps: the baselines, then the run's own. {}:
    not evaluated yet. Processes other than the first may lack them, so calls of `predict` must not
    depend on them."""
    metrics: Mapping[str, Metric]
    """Declarations of the metrics in results and lines."""
    data: EvalData
    split: str
    """Whose images are drawn: 'test', or 'train' if there is no test set."""
    predict: Callable[..., Predict]
    """(names of outputs, reduce=None) -> a function from a batch to these outputs, or to what
    `reduce` makes of them on the devices, see `Evaluator.reduce`."""
    pictures: Callable[[int, int], dict[str, np.ndarray]]
    """(count, seed) -> the method's pictures of the first held-out images, each
    [count, *space, C] uint8, in the order in which they are drawn. `seed` draws the masks."""


def draws_always(method: Method) -> str | None:
    """A `check` that accepts every method."""
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure, as every `make` returns it."""

    name: str
    files: tuple[str, ...]
    """Names of the files that it writes."""
    draw: Callable[[FigureContext], list[Path]]
    """Writes the files, see `save`, and returns their paths. Called in all processes."""
    check: Callable[[Method], str | None] = draws_always
    """Returns why there is nothing to draw for a method, or None."""
    sheet: Callable[[FigureContext, int | None, int], matplotlib.figure.Figure] | None = None
    """Draws (count, seed) of `FigureContext.pictures` in one picture, for `mae-jax reconstruct`; a
    count of None is the figure's own."""
    log: Callable[[FigureContext], tuple[np.ndarray, str]] | None = None
    """Returns a picture [H, W, 3] uint8 and its caption in Markdown, for the writers at each
    evaluation. Called in all processes."""


def save(figure: matplotlib.figure.Figure, path: Path) -> Path:
    """Writes a picture, in the first process. Returns `path`."""
    if jax.process_index() == 0:
        figure.savefig(path)
    return path
