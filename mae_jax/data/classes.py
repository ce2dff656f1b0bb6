"""Matches the classes of a test set to those of the training set by name. Sets such as ImageNet-A,
-R and -Sketch have a subset of ImageNet's classes under the same names; their labels are renumbered
to those of the training set.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mae_jax.data.names import composed, printable
from mae_jax.data.sources import Source, Wrapper
from mae_jax.types import IGNORE, UserError


class Renumbered(Wrapper):
    """A source with its labels renumbered to a longer list of classes.

    Args:
        source: source with labels.
        class_names: the longer list.
        own_names: classes of the source, spelled as in that list.
    """

    def __init__(self, source: Source, class_names: Sequence[str], own_names: Sequence[str]):
        super().__init__(source)
        self.names = {**source.names, "label": tuple(class_names)}
        label = {name: number for number, name in enumerate(class_names)}
        self.numbers = np.array([label[name] for name in own_names], np.int32)

    def read(self, indices: np.ndarray):
        """Rows of every field; see `Source`."""
        fields = dict(self.source.read(indices))
        labels = np.asarray(fields["label"])
        fields["label"] = np.where(labels < 0, labels, self.numbers[labels])  # -1: unknown
        return fields

    def class_counts(self):
        """[classes] int of the longer list; None if the source does not count its own."""
        counts = self.source.class_counts()
        if counts is None:
            return None
        return np.bincount(self.numbers, counts, len(self.class_names)).astype(int)


class Reordered(Wrapper):
    """A source with the columns of 'labels' in the order of a longer list of classes. Classes that
    it lacks are unknown.

    Args:
        source: source with the field 'labels'.
        class_names: the longer list.
    """

    def __init__(self, source: Source, class_names: Sequence[str]):
        super().__init__(source)
        place = {name: number for number, name in enumerate(class_names)}
        self.columns = [place[name] for name in source.names["labels"]]
        self.names = {**source.names, "labels": tuple(class_names)}

    def read(self, indices: np.ndarray):
        """Rows of every field; see `Source`."""
        fields = dict(self.source.read(indices))
        labels = np.full((len(indices), len(self.names["labels"])), IGNORE, np.uint8)
        labels[:, self.columns] = np.asarray(fields["labels"])  # [n, K]
        return {**fields, "labels": labels}

    def labels(self):
        """Of 'label', in the wrapped source."""
        return self.source.labels()


def like(source: Source, train: Source, fields: Sequence[str]) -> Source:
    """Renumbers the labels of a test set to those of the training set, 'label' and 'labels'. Names
    of 'label' that differ only in Unicode normalization, such as names from macOS, count as equal.

    Args:
        source: the test set.
        train: the training set.
        fields: fields in use; others are not renumbered.

    Raises:
        UserError: the test set has classes that the training set lacks.
    """
    for field in (source.names.keys() & train.names.keys() & {*fields}) - {"label"}:
        if tuple(source.names[field]) != tuple(train.names[field]):
            if field == "labels":
                source = _reordered(source, train)
                continue
            raise UserError(
                f"the classes of {field!r} in config.data.train and config.data.test differ: use "
                "the same classes in the same order"
            )
    if "label" not in fields:
        return source
    ours, theirs = tuple(train.class_names), tuple(source.class_names)
    if not ours or not theirs or ours == theirs:
        return source
    forms = Counter(map(composed, ours))
    same = {composed(name): name for name in ours if forms[composed(name)] == 1}
    matched = [name if name in ours else same.get(composed(name), name) for name in theirs]
    if odd := sorted({*matched} - {*ours}):
        cases = {name.casefold(): name for name in ours}
        near = [cases.get(name.casefold()) for name in odd]
        shown = [
            f"{printable(name)} ({printable(other)} in the former)" if other else printable(name)
            for name, other in zip(odd, near, strict=True)
        ]
        raise UserError(
            f"the classes of config.data.train and config.data.test differ: {shortened(shown)} "
            "only in the latter; use the same classes, or no labels: config.data.fields=()"
        )
    return Renumbered(source, ours, matched)


def _reordered(source: Source, train: Source) -> Source:
    ours, theirs = (tuple(one.names["labels"]) for one in (train, source))
    if odd := [name for name in theirs if name not in ours]:
        raise UserError(
            "classes of 'labels' are only in config.data.test: "
            f"{shortened(list(map(printable, odd)))}; list the same classes for both sets"
        )
    return Reordered(source, ours)


def counted(source: Source) -> str:
    """The classes of a source, with example counts if these are known without reading the examples:
    '2 classes: cat 3, dog 4'; empty if it has no labels.
    """
    names = source.class_names
    if not names:
        return ""
    shown = [printable(name) for name in names]
    counts = source.class_counts()
    if counts is not None:
        shown = [f"{name} {count}" for name, count in zip(shown, counts, strict=True)]
    return f"{len(names)} classes: {shortened(shown)}"


def shortened(names: Sequence[str]) -> str:
    """The first eight names, comma-separated, and the number of the others."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
