"""Where examples come from: one source a file, each found by its name.

A source gives random access, and nothing else. Order, augmentation and batching are the pipeline's.
Sources are read by several threads at once, and hold at most 16 bytes an example (but for those
that say that they are in memory).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Statistics(NamedTuple):
    """Mean and standard deviation of the pixels of each channel, values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Source(Protocol):
    """A set of examples with random access; sources derive from it. One that knows all labels
    without reading the examples has a method `labels() -> [N] int32` too.
    """

    num_examples: int
    class_names: Sequence[str] = ()
    """Of the labels 0, 1, ...; empty if there are no labels."""
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

    def read(self, indices: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Rows of every field for some examples.

        Args:
            indices: [n] int, in [0, num_examples).

        Returns:
            'image': [H, W, C] uint8 each, or `images.Encoded`; 'label': int, 'segmentation':
            [H, W], 'box': [..., 4], if there are any.

        Raises:
            BadImage: one of them cannot be read.
        """

    def name(self, index: int) -> str:
        """What an example is called, in messages and in lists of features."""

    def class_counts(self) -> np.ndarray | None:
        """[classes] int, examples of each class; None if only reading all of them would tell."""
        return None

    def group(self, index: int) -> str:
        """Name of the examples that belong together, such as the slices of one volume: they must
        not be split between training and test sets.
        """
        return self.name(index)


class Arrays(Source):
    """A source in memory.

    Args:
        fields: name -> array with one row per example; 'image' is [N, H, W, C] uint8.
        class_names: the name of each label, empty if there are no labels.
    """

    def __init__(self, fields: Mapping[str, np.ndarray], class_names: Sequence[str] = ()):
        self.fields = dict(fields)
        self.class_names = tuple(class_names)
        self.num_examples = len(self.fields["image"])
        if "label" in self.fields:
            self.labels = lambda: self.fields["label"]

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows at `indices` [n] of every field."""
        return {name: array[indices] for name, array in self.fields.items()}

    def class_counts(self) -> np.ndarray | None:
        """[classes] int, examples of each class."""
        return count_labels(self.fields.get("label"), self.class_names)

    def name(self, index: int) -> str:
        """The place in memory."""
        return f"[{index}]"


def count_labels(labels: np.ndarray | None, class_names: Sequence[str]) -> np.ndarray | None:
    """How many examples each class has: [N] int labels to [classes] int; -1 is of no class."""
    if labels is None:
        return None
    return np.bincount(labels[labels >= 0], minlength=len(class_names))
