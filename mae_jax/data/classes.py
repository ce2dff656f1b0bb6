"""Classes of two sources, told apart by their names: what a test set calls 0 must be what the
training set calls 0. Sets such as ImageNet-A, -R and -Sketch have some of ImageNet's classes only,
under the same names, and are numbered anew.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mae_jax.data.names import composed, printable
from mae_jax.data.sources import Source, Wrapper
from mae_jax.types import UserError


class Renumbered(Wrapper):
    """A source whose labels are numbers in a longer list of classes.

    Args:
        source: has labels.
        class_names: the longer list.
        own_names: its own names as that list writes them.
    """

    def __init__(self, source: Source, class_names: Sequence[str], own_names: Sequence[str]):
        super().__init__(source)
        self.names = {**source.names, "label": tuple(class_names)}
        place = {name: number for number, name in enumerate(class_names)}
        self.numbers = np.array([place[name] for name in own_names], np.int32)

    def read(self, indices: np.ndarray):
        """Rows of every field, see `Source`."""
        fields = dict(self.source.read(indices))
        labels = np.asarray(fields["label"])
        fields["label"] = np.where(labels < 0, labels, self.numbers[labels])  # -1: unknown
        return fields

    def class_counts(self):
        """[classes] int of the longer list, if the source itself counts them."""
        counts = self.source.class_counts()
        if counts is None:
            return None
        return np.bincount(self.numbers, counts, len(self.class_names)).astype(int)


def like(source: Source, train: Source, fields: Sequence[str]) -> Source:
    """A test set whose label numbers are those of the training set. Names that differ only in the
    form of Unicode, as those of macOS differ from others, are the same.

    Args:
        fields: those that are used.

    Raises:
        UserError: it has classes that the training set has not.
    """
    for field in (source.names.keys() & train.names.keys() & {*fields}) - {"label"}:
        if tuple(source.names[field]) != tuple(train.names[field]):
            raise UserError(
                f"the classes of {field!r} in config.data.train and config.data.test differ: give "
                "both the same ones, in the same order"
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
            "only in the latter; give both the same ones, or do without labels: "
            "config.data.fields=()"
        )
    return Renumbered(source, ours, matched)


def counted(source: Source) -> str:
    """The classes of a source and, where it knows them without reading, how many examples each has:
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
    """The first eight of some names."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
