"""Subsets of a source: a validation split, or a small labeled subset."""

from collections.abc import Callable, Mapping

import numpy as np

from mae_jax.data.groups import check_groups, pick_groups
from mae_jax.data.images import BadImage
from mae_jax.data.random import hash_words, permute
from mae_jax.data.sources import Source, Wrapper
from mae_jax.data.volume_geometry import VolumeGeometry
from mae_jax.spec import call, parse
from mae_jax.types import UserError

_HELD_OUT, _SUBSET = 3, 4
WAY_OUT = "give a share in (0, 1) that leaves some on both sides"


class Part(Wrapper):
    """A subset of the examples of a source.

    Args:
        source: the full source.
        indices: [n] int64, its examples to use.
        labels: [N] labels of all its examples; None: `source.labels()`.
    """

    def __init__(self, source: Source, indices: np.ndarray, labels: np.ndarray | None = None):
        super().__init__(source)
        self.indices, self.num_examples, self._labels = indices, len(indices), labels

    def labels(self) -> np.ndarray | None:
        """[n] int32; None if the labels are unknown without reading the examples."""
        labels = self.source.labels() if self._labels is None else self._labels
        return None if labels is None else labels[self.indices]

    def column(self, field: str) -> np.ndarray | None:
        """[n, ...]; None if the values are unknown without reading the examples."""
        if field == "label":
            return self.labels()
        values = self.source.column(field)
        return None if values is None else values[self.indices]

    def read(self, indices: np.ndarray):
        """Rows of every field; see `Source`."""
        return self.source.read(self.indices[np.asarray(indices)])

    def name(self, index: int) -> str:
        """Name of the example in the full source."""
        return self.source.name(int(self.indices[index]))

    def weights(self) -> np.ndarray | None:
        """[n] float32, if the full source has weights."""
        weights = self.source.weights()
        return None if weights is None else weights[self.indices]

    def group(self, index: int) -> str:
        """Group of the example in the full source."""
        return self.source.group(int(self.indices[index]))

    def geometry(self, index: int) -> VolumeGeometry | None:
        """Geometry of the example in the full source."""
        return self.source.geometry(int(self.indices[index]))

    def groups(self) -> np.ndarray | None:
        """[n] int32, numbers of the groups in the full source, if it has groups."""
        groups = self.source.groups()
        return None if groups is None else groups[self.indices]


def parts(
    sources: Mapping[str, Source], text: str, share: float, *, skip: bool = False
) -> dict[str, Source]:
    """The sources with the training set reduced to a subset, and with the split 'val' of it.

    Args:
        sources: split -> source: 'train', and 'test' if there is one.
        text: see `subset`; '': all examples.
        share: see `hold_out`; 0: no split 'val'.
        skip: see `labels_of`.

    Raises:
        UserError: see `subset` and `hold_out`; a group is in the training and in the test set.
    """
    train = subset(sources["train"], text, skip=skip) if text else sources["train"]
    if "test" in sources:
        check_groups(train, sources["test"])
    held = dict(zip(("train", "val"), hold_out(train, share))) if share else {"train": train}
    return {**sources, **held}


def hold_out(source: Source, share: float) -> tuple[Part, Part]:
    """Splits a source deterministically into (training, held-out) parts, stratified by class if the
    labels are known without reading the examples. Groups of the source are not split.

    Args:
        source: the full source.
        share: share to hold out, in (0, 1).

    Raises:
        UserError: a part, or the training part of a class, would be empty.
    """
    if not 0 < share < 1:
        raise UserError(f"held_out {share}: {WAY_OUT}")
    count, names = source.num_examples, source.class_names
    labels = source.labels() if names else None
    groups = source.groups()
    if groups is not None:
        strata = None if labels is None else labels - labels.min()  # from 0; no class (-1) is one
        held = pick_groups(groups, share, strata=strata, stream=_HELD_OUT)
    elif labels is not None:
        held = _pick(labels, names, lambda n: round(n * share), _HELD_OUT, 0)
    else:
        held = np.sort(permute(np.arange(round(count * share)), count, _HELD_OUT))
    kept = np.setdiff1d(np.arange(count), held)
    if not (len(held) and len(kept)):
        raise UserError(f"held_out {share} of {count} images is {len(held)}: {WAY_OUT}")
    if labels is not None and (lost := {*labels} - {*labels[kept], -1}):
        raise UserError(f"held_out {share} is all of the class {names[min(lost)]!r}: {WAY_OUT}")
    train, val = Part(source, kept), Part(source, held)
    if groups is not None:  # runs of versions that split groups cannot resume
        train.digest = val.digest = f"{source.digest} in groups"
    return train, val


def check(text: str, held_out: float) -> None:
    """Checks `data.subset` and `data.held_out` before any example is read.

    Raises:
        UserError: there is no such rule, or the share is not in (0, 1).
    """
    if text:
        _rule(text)
    if held_out and not 0 < held_out < 1:
        raise UserError(f"held_out {held_out}: {WAY_OUT}")


def subset(source: Source, text: str, *, skip: bool = False) -> Source:
    """The subset that a spec string describes: 'share(0.01, seed=1)' or 'per_class(10, seed=1)'.
    For a source without labels of whole images, such as segmentations, a share of all examples.
    Examples known to be damaged have no class, and are left out of a subset by classes.

    Args:
        skip: see `labels_of`.

    Raises:
        UserError: there is no such rule, or a class has too few examples.
    """
    choose = _rule(text)
    if not source.class_names and parse(text)[0].name == "share":
        return Part(source, choose(np.zeros(source.num_examples, np.int32), ("all",)))
    labels = labels_of(source, skip=skip)
    return Part(source, choose(labels, source.class_names), labels)


def _rule(text: str):
    """The rule of a spec string: (labels, class names) -> indices of the examples to use."""
    rules = {"share": _share, "per_class": _per_class}
    calls = parse(text)
    if len(calls) != 1 or calls[0].name not in rules:
        raise UserError(f"subset {text!r}: write {' or '.join(f'{r}(...)' for r in rules)}")
    name, args, kwargs = calls[0]
    return call(text, rules[name], *args, **kwargs)


def _share(share: float, *, seed: int = 0):
    """A rule that picks this share of each class, but at least one example."""
    if not 0 < share <= 1:
        raise UserError(f"subset share({share}): give a share in (0, 1]")
    return lambda labels, names: _pick(
        labels, names, lambda n: max(1, round(n * share)), _SUBSET, seed
    )


def _per_class(count: int, *, seed: int = 0):
    """A rule that picks `count` examples of each class."""
    if count < 1:
        raise UserError(f"subset per_class({count}): at least one is needed")
    return lambda labels, names: _pick(labels, names, lambda n: count, _SUBSET, seed)


def _pick(
    labels: np.ndarray, names, wanted: Callable[[int], int], stream: int, seed: int
) -> np.ndarray:
    """[n] int64, indices of random examples of each class, ascending.

    Args:
        labels: [N], labels of all examples.
        names: names of the classes.
        wanted: size of a class -> examples to pick from it.
        stream: number of the random stream.
        seed: seed of the choice.
    """
    chosen = []
    for label in range(len(names)):
        members = np.flatnonzero(labels == label)
        count = wanted(len(members))
        if count > len(members):
            raise UserError(
                f"class {names[label]!r} has {len(members)} images, fewer than {count}: lower it"
            )
        order = np.argsort(hash_words(stream, seed, members), kind="stable")
        chosen.append(members[order[:count]])
    return np.sort(np.concatenate(chosen))


def labels_of(source: Source, *, skip: bool = False) -> np.ndarray:
    """Labels [N] int32 of all examples, -1 for those without a class. If the source does not know
    them, every example is read once, without decoding.

    Args:
        skip: whether an example that cannot be read then has no class.

    Raises:
        UserError: there are no labels; an example cannot be read, and is not skipped.
    """
    if not source.class_names:
        raise UserError(
            "subset per_class needs labels: give a folder with one sub-folder for each class, or "
            "share(...)"
        )
    known = source.labels()
    if known is not None:
        return known
    every = np.arange(source.num_examples)
    read = [_labels_at(source, every[first:][:1024], skip) for first in range(0, len(every), 1024)]
    return np.concatenate(read).astype(np.int32)


def _labels_at(source: Source, indices: np.ndarray, skip: bool) -> np.ndarray:
    """Labels of examples [n], read together or else, if one is damaged, one by one."""
    try:
        return np.asarray(source.read(indices)["label"])
    except BadImage as error:
        if len(indices) > 1:
            return np.concatenate([_labels_at(source, part, skip) for part in indices[:, None]])
        if skip:
            return np.array([-1])
        raise UserError(
            f"cannot read {source.name(int(indices[0]))}: {error}; repair or remove it, or have "
            "such images skipped: --config.data.on_error=skip"
        ) from error
