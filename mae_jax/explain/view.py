"""The `View` type, and what a view returns: pictures, charts, maps to click on, and numbers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mae_jax.explain.subject import Subject

SECTIONS = {
    "attention": "What it attends to",
    "patches": "What patches look like to it",
    "predictions": "What it predicts",
    "features": "How features are arranged",
}
"""Parts of the page, in their order -> heading."""


class Chart(NamedTuple):
    """A drawn figure."""

    png: bytes
    alt: str
    """What it shows, in words."""


class Weights(NamedTuple):
    """Maps to click on: a weight of each patch for a query, which is the class token or a patch."""

    shades: np.ndarray
    """[N, blocks, panels, queries, L] uint8 in [0, `heat.SHADES`]; of fewer images than are shown,
    the first ones. With a class token, it is the first query."""
    peaks: np.ndarray
    """[N, blocks, panels, queries] float32: the largest weight of each map."""
    blocks: Sequence[str]
    panels: Sequence[str]
    """Labels of the blocks to choose from, and of the maps side by side."""
    class_token: bool
    low: str = "0"
    """What the darkest color means."""


class Vectors(NamedTuple):
    """Vectors of patches to click on, whose products with that of the clicked patch are shown."""

    values: Mapping[str, np.ndarray]
    """Label of a kind of vectors to choose from -> [N, L, k] float32, each k its own; the last one
    is shown first."""


class Shown(NamedTuple):
    """What a view found."""

    numbers: Mapping[str, Any]
    """For `numbers.json`: lists, dicts, texts and numbers."""
    findings: Sequence[str] = ()
    """Lines of text on the most important numbers."""
    tiles: Mapping[str, np.ndarray] = {}
    """Label -> a picture for each image, [N, h, w, 3] uint8. Of views with `maps` the page leaves
    them out, as the maps show more."""
    captions: Sequence[str] = ()
    """A text for each image below its tiles; (): none."""
    charts: Mapping[str, Chart] = {}
    """Name of a file, without '.png' -> the chart."""
    maps: Weights | Vectors | None = None


def applies_always(subject: Subject) -> str | None:
    """A `check` that accepts every model."""
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """A view, as every `make` returns it."""

    name: str
    title: str
    section: str
    """One of `SECTIONS`."""
    order: int = 9
    """Views of a section are sorted by it."""
    reads: str
    """How to read it, in a line."""
    misleads: str
    """When it misleads, in a line."""
    draw: Callable[[Subject], Shown]
    check: Callable[[Subject], str | None] = applies_always
    """Returns why it does not apply to a model or its images, or None."""
