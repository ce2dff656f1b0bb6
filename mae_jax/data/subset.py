"""Parts of a source: held out for validation, or as few labels as an experiment allows."""

from collections.abc import Callable

import numpy as np

from mae_jax.data.random import hash_words, permute
from mae_jax.data.sources import Source, Wrapper
from mae_jax.spec import call, parse
from mae_jax.types import UserError

_HELD_OUT, _SUBSET = 3, 4
WAY_OUT = "give a share in (0, 1) that leaves some on both sides"


class Part(Wrapper):
    """Some examples of a source.

    Args:
        source: the whole.
        places: [n] int64, of its examples.
        labels: [N] of all examples; None: as the whole knows them.
    """

    def __init__(self, source: Source, places: np.ndarray, labels: np.ndarray | None = None):
        super().__init__(source)
        self.places, self.num_examples, self._labels = places, len(places), labels

    def labels(self) -> np.ndarray | None:
        """[n] int32 of the part, if the labels are known without reading the examples."""
        labels = self.source.labels() if self._labels is None else self._labels
        return None if labels is None else labels[self.places]

    def read(self, indices: np.ndarray):
        """Rows of every field, see `Source`."""
        return self.source.read(self.places[np.asarray(indices)])

    def name(self, index: int) -> str:
        """What the whole calls it."""
        return self.source.name(int(self.places[index]))

    def group(self, index: int) -> str:
        """As in the whole."""
        return self.source.group(int(self.places[index]))


def hold_out(source: Source, share: float) -> tuple[Part, Part]:
    """A source in two parts, the same ones every time: what remains, and what is held out, of each
    class if the source knows the labels without reading the examples.

    Raises:
        UserError: a part, or what remains of a class, would be empty.
    """
    if not 0 < share < 1:
        raise UserError(f"held_out {share}: {WAY_OUT}")
    count, names = source.num_examples, source.class_names
    labels = source.labels() if names else None
    if labels is not None:
        held = _pick(labels, names, lambda n: round(n * share), _HELD_OUT, 0)
    else:
        held = np.sort(permute(np.arange(round(count * share)), count, _HELD_OUT))
    kept = np.setdiff1d(np.arange(count), held)
    if not (len(held) and len(kept)):
        raise UserError(f"held_out {share} of {count} images is {len(held)}: {WAY_OUT}")
    if labels is not None and (lost := {*labels} - {*labels[kept]}):
        raise UserError(f"held_out {share} is all of the class {names[min(lost)]!r}: {WAY_OUT}")
    return Part(source, kept), Part(source, held)


def check(text: str, held_out: float) -> None:
    """Checks `data.subset` and `data.held_out` as far as they tell without the examples.

    Raises:
        UserError: no such rule, or no such share.
    """
    if text:
        _rule(text)
    if held_out and not 0 < held_out < 1:
        raise UserError(f"held_out {held_out}: {WAY_OUT}")


def subset(source: Source, text: str) -> Source:
    """The part that a spec string names: 'share(0.01, seed=1)' or 'per_class(10, seed=1)'. Of a
    source without classes of whole images, such as one of segmentations, a share of all.

    Raises:
        UserError: no such rule, or a class without enough examples.
    """
    choose = _rule(text)
    if not source.class_names and parse(text)[0].name == "share":
        return Part(source, choose(np.zeros(source.num_examples, np.int32), ("all",)))
    labels = labels_of(source)
    return Part(source, choose(labels, source.class_names), labels)


def _rule(text: str):
    """What a spec string names: labels and names of classes -> the examples to use."""
    rules = {"share": _share, "per_class": _per_class}
    calls = parse(text)
    if len(calls) != 1 or calls[0].name not in rules:
        raise UserError(f"subset {text!r}: write {' or '.join(f'{r}(...)' for r in rules)}")
    name, args, kwargs = calls[0]
    return call(text, rules[name], *args, **kwargs)


def _share(share: float, *, seed: int = 0):
    """The same share of every class, at least one example of each."""
    if not 0 < share <= 1:
        raise UserError(f"subset share({share}): give a share in (0, 1]")
    return lambda labels, names: _pick(
        labels, names, lambda n: max(1, round(n * share)), _SUBSET, seed
    )


def _per_class(count: int, *, seed: int = 0):
    """As many of every class."""
    if count < 1:
        raise UserError(f"subset per_class({count}): at least one is needed")
    return lambda labels, names: _pick(labels, names, lambda n: count, _SUBSET, seed)


def _pick(
    labels: np.ndarray, names, wanted: Callable[[int], int], stream: int, seed: int
) -> np.ndarray:
    """[n] int64 examples, in the order of the whole."""
    chosen = []
    for label in range(len(names)):
        places = np.flatnonzero(labels == label)
        count = wanted(len(places))
        if count > len(places):
            raise UserError(
                f"class {names[label]!r} has {len(places)} images, and {count} are asked for"
            )
        order = np.argsort(hash_words(stream, seed, places), kind="stable")
        chosen.append(places[order[:count]])
    return np.sort(np.concatenate(chosen))


def labels_of(source: Source) -> np.ndarray:
    """[N] int32, or a UserError if there are none. Where the source does not know them by heart,
    every example is read once, but not decoded.
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
    parts = [source.read(every[first:][:1024])["label"] for first in range(0, len(every), 1024)]
    return np.concatenate(parts).astype(np.int32)
