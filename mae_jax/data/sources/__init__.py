"""Where examples come from: one source a file, each found by its name.

A source gives random access, and nothing else. Order, augmentation and batching are the pipeline's.
Sources are read by several threads at once, and hold at most 16 bytes an example (but for those
that say that they are in memory).
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mae_jax.data.fields import Field


class Statistics(NamedTuple):
    """Mean and standard deviation of the pixels of each channel, values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Source(abc.ABC):
    """A set of examples with random access; sources derive from it."""

    num_examples: int
    names: Mapping[str, Sequence[str]] = {}
    """Field -> names of its classes 0, 1, ...: {'label': ('cat', 'dog')}; without the fields whose
    values are no classes."""
    fields: Mapping[str, Field] = {}
    """Those that `fields.FIELDS` does not know and that have a type or move with the image."""
    empty_classes: Sequence[str] = ()
    """Classes without an example."""
    digest: str = ""
    """Changes if the list of examples does, for the same arguments; empty if it never does. What
    is inside files is not looked at."""
    notes: Sequence[str] = ()
    """Facts about the examples to report at the start, one line each: files left out, defaults that
    change pixels."""
    reading: str = ""
    """What this version of the source reads in another way than earlier ones did, for a run that
    goes on to report; empty if nothing."""
    statistics: Statistics | None = None
    """Measured over the examples, if that has been done."""
    damaged: Sequence[str] = ()
    """Examples that are known at the start to be unreadable, 'NAME: REASON' each. To read one
    raises BadImage."""

    @abc.abstractmethod
    def read(self, indices: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Rows of every field for some examples.

        Args:
            indices: [n] int, in [0, num_examples).

        Returns:
            One row of each field for every index, see `fields.FIELDS`: 'image' [*space, C], uint8
            usual, or `images.Encoded`; 'label': int; whatever else there is. No field has to be.

        Raises:
            BadImage: one of them cannot be read.
        """

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """What an example is called, in messages and in lists of features."""

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes of 'label'; empty if there are no labels."""
        return self.names.get("label", ())

    def labels(self) -> np.ndarray | None:
        """[N] int32, the label of every example; None if only reading all of them would tell."""
        return None

    def class_counts(self) -> np.ndarray | None:
        """[classes] int, examples of each class; None if only reading all of them would tell."""
        labels = self.labels()
        if labels is None:
            return None
        return np.bincount(labels[labels >= 0], minlength=len(self.class_names))  # -1: no class

    def group(self, index: int) -> str:
        """Name of the examples that belong together, such as the slices of one volume: they must
        not be split between training and test sets.
        """
        return self.name(index)


class Arrays(Source):
    """A source in memory.

    Args:
        arrays: field -> array with one row per example; 'image' is [N, *space, C], uint8 usual.
        names: field -> names of its classes.
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]] | None = None
    ):
        self.arrays, self.names = dict(arrays), dict(names or {})
        self.num_examples = len(next(iter(self.arrays.values())))

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows at `indices` [n] of every field."""
        return {name: array[indices] for name, array in self.arrays.items()}

    def labels(self) -> np.ndarray | None:
        """[N] int, if there are labels."""
        return self.arrays.get("label")

    def name(self, index: int) -> str:
        """The place in memory."""
        return f"[{index}]"


class Wrapper(Source):
    """A source over another one: like that one, but for what a subclass changes."""

    def __init__(self, source: Source):
        self.source = source
        self.num_examples, self.digest = source.num_examples, source.digest
        self.names, self.fields = source.names, source.fields
        self.notes, self.reading = source.notes, source.reading
        self.statistics = source.statistics

    def name(self, index: int) -> str:
        """What the other one calls it."""
        return self.source.name(index)

    def group(self, index: int) -> str:
        """As in the other one."""
        return self.source.group(index)
