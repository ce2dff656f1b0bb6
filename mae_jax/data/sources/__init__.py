"""Where examples come from: one source a file, each found by its name.

A source gives random access, and nothing else: `num_examples`, `class_names` and
`read(indices)`, which returns one row per index for every field. Order, augmentation and batching
are the pipeline's.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np


class Source(Protocol):
    """A set of examples with random access."""

    num_examples: int
    class_names: Sequence[str]
    digest: str
    """Changes if the examples do, for the same arguments; empty if they never do."""

    def read(self, indices: np.ndarray) -> Mapping[str, Sequence]:
        """Rows of every field: 'image' (each [H, W, C] uint8, sizes may differ), 'label' if any."""


class Arrays:
    """A source in memory.

    Args:
        fields: name -> array with one row per example; 'image' is [N, H, W, C] uint8.
        class_names: the name of each label, empty if there are no labels.
    """

    digest = ""

    def __init__(self, fields: Mapping[str, np.ndarray], class_names: Sequence[str] = ()):
        self.fields = dict(fields)
        self.class_names = tuple(class_names)
        self.num_examples = len(self.fields["image"])

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows at `indices` [B] of every field."""
        return {name: array[indices] for name, array in self.fields.items()}
