"""Sources of examples, one module each, looked up by name.

A source provides random access only; the pipeline does ordering, augmentation and batching. Sources
are read by several threads at once. They hold at most 16 bytes per example in memory, unless they
are documented as in-memory.
"""

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mae_jax.data.fields import Field
from mae_jax.data.vocabulary import Vocabulary
from mae_jax.data.volume_geometry import VolumeGeometry


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel, for values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Source(abc.ABC):
    """Base class of sources: a set of examples with random access."""

    num_examples: int
    names: Mapping[str, Sequence[str]] = {}
    """Field -> names of its classes 0, 1, ..., e.g. {'label': ('cat', 'dog')}; only for fields of
    class numbers."""
    fields: Mapping[str, Field] = {}
    """Type and geometry of fields that are not in `fields.FIELDS`."""
    empty_classes: Sequence[str] = ()
    """Classes without an example."""
    digest: str = ""
    """Hash of the list of examples, for the same arguments; empty if the list never changes. Does
    not cover the contents of files."""
    notes: Sequence[str] = ()
    """Lines about the examples to report at the start of a run: files left out, defaults that
    change pixels."""
    reading: str = ""
    """How decoding differs from earlier versions of this source, reported by resumed runs; empty
    if it does not."""
    statistics: Statistics | None = None
    """Statistics of the examples, if they were measured."""
    vocabulary: Vocabulary | None = None
    """Of the field 'text', if there is one and it has a tokenizer."""
    damaged: Sequence[str] = ()
    """Examples known to be unreadable, as 'NAME: REASON'. Reading one raises BadImage."""

    @abc.abstractmethod
    def read(self, indices: np.ndarray) -> Mapping[str, Sequence[Any]]:
        """Reads some examples.

        Args:
            indices: [n] int, in [0, num_examples).

        Returns:
            Field -> n values, see `fields.FIELDS`: 'image' [*space, C], usually uint8, or
            `images.Encoded` or `lazy.Lazy`; 'label', int; and others. No field is required.

        Raises:
            BadImage: one of the examples is unreadable.
        """

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """Name of an example, for messages and lists of features."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes of 'label'; empty if there are no labels."""
        return self.names.get("label", ())

    def labels(self) -> np.ndarray | None:
        """[N] int32, labels of all examples, -1 for no class, as of a damaged example; None if that
        needs reading the examples.
        """
        return None

    def column(self, field: str) -> np.ndarray | None:
        """[N, ...] the values of a field of labels of all examples; None if that needs reading the
        examples.
        """
        return self.labels() if field == "label" else None

    def class_counts(self) -> np.ndarray | None:
        """[classes] int, examples of each class; None if that needs reading the examples."""
        labels = self.labels()
        if labels is None:
            return None
        return np.bincount(labels[labels >= 0], minlength=len(self.class_names))  # -1: no class

    def captions(self) -> Iterable[Sequence[str]] | None:
        """The captions of each example; None if there is no column of them."""
        return None

    def weights(self) -> np.ndarray | None:
        """[N] float32, weights of all examples for sampling; None if there are none."""
        return None

    def group(self, index: int) -> str:
        """Key of the examples that must stay in one split, such as the slices of a volume."""
        return self.name(index)

    def groups(self) -> np.ndarray | None:
        """[N] int32, numbers of the groups of all examples; None: each example is its own."""
        return None

    def geometry(self, index: int) -> VolumeGeometry | None:
        """Where the voxels of a volume are in space; None if it is not known.

        Raises:
            BadImage: the example is unreadable.
        """
        return None

    @property
    def group_names(self) -> Sequence[str]:
        """Names of the groups 0, 1, ..., which are the same in other sets; empty if there are
        none.
        """
        return ()


class Arrays(Source):
    """A source in memory.

    Args:
        arrays: field -> array with one row per example; 'image' is [N, *space, C], usually uint8.
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

    def column(self, field: str) -> np.ndarray | None:
        """[N, ...], if there is such a field."""
        return self.arrays.get(field)

    def name(self, index: int) -> str:
        """The index in brackets."""
        return f"[{index}]"


class Wrapper(Source):
    """A source that wraps another one; subclasses override what they change."""

    def __init__(self, source: Source):
        self.source = source
        self.num_examples, self.digest = source.num_examples, source.digest
        self.names, self.fields = source.names, source.fields
        self.notes, self.reading = source.notes, source.reading
        self.statistics, self.vocabulary = source.statistics, source.vocabulary

    def name(self, index: int) -> str:
        """Name in the wrapped source."""
        return self.source.name(index)

    def weights(self) -> np.ndarray | None:
        """Weights in the wrapped source."""
        return self.source.weights()

    def group(self, index: int) -> str:
        """Group in the wrapped source."""
        return self.source.group(index)

    def groups(self) -> np.ndarray | None:
        """Groups in the wrapped source."""
        return self.source.groups()

    def geometry(self, index: int) -> VolumeGeometry | None:
        """Geometry in the wrapped source."""
        return self.source.geometry(index)

    @property
    def group_names(self) -> Sequence[str]:
        """Names of the groups in the wrapped source."""
        return self.source.group_names
