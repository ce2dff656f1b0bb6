"""Statistics of a set of images: mean and standard deviation of its channels, sizes, classes.

All counts are integers, so the counts of parts add up exactly, in any order.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mae_jax.types import UserError

COUNTERS = ("depths", "heights", "widths", "labels")
_ROUNDING = 1e-9  # above the rounding error in the standard deviation of equal values


class Tally:
    """Counts over images, added one by one.

    Args:
        channels: number of channels of the images.
    """

    def __init__(self, channels: int):
        self.images = self.bytes = 0
        self.values = np.zeros((channels, 256), np.int64)  # histograms of the pixels
        self.depths: Counter[int] = Counter()  # of volumes
        self.heights: Counter[int] = Counter()
        self.widths: Counter[int] = Counter()
        self.labels: Counter[int] = Counter()
        self.unreadable: dict[str, str] = {}
        self.groups: list[int] = []  # of each image, in order, if there are groups

    def add(
        self,
        size: int,
        shape: Sequence[int],
        values: np.ndarray,
        label: int,
        depth: int | None = None,
    ) -> None:
        """Counts one image.

        Args:
            size: bytes of its file.
            shape: (height, width).
            values: its `histogram`.
            label: its class.
            depth: of a volume.
        """
        self.images += 1
        self.bytes += size
        self.values += values
        self.heights[shape[0]] += 1
        self.widths[shape[1]] += 1
        self.labels[label] += 1
        if depth is not None:
            self.depths[depth] += 1

    def to_json(self) -> dict[str, Any]:
        """All counts, for `from_json`."""
        return {**vars(self), "values": self.values.tolist()}

    @classmethod
    def from_json(cls, counts: Mapping[str, Any]) -> "Tally":
        """Restores a tally from the result of `to_json`."""
        tally = cls(len(counts["values"]))
        vars(tally).update(counts, values=np.array(counts["values"], np.int64))
        for name in COUNTERS:  # JSON turns integer keys into strings
            vars(tally)[name] = Counter({int(k): n for k, n in counts.get(name, {}).items()})
        return tally

    @classmethod
    def total(cls, tallies: Sequence["Tally"]) -> "Tally":
        """The sum of at least one tally."""
        total = cls(len(tallies[0].values))
        for tally in tallies:
            total.images += tally.images
            total.bytes += tally.bytes
            total.values += tally.values
            total.unreadable |= tally.unreadable
            total.groups += tally.groups
            for name in COUNTERS:
                vars(total)[name].update(vars(tally)[name])
        return total

    def summary(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Statistics for users and configs.

        'mean' and 'std' of each channel over all pixels of all images (so large images count more),
        for values in [0, 1]; 'min', 'median' and 'max' of 'height' and 'width' in pixels, and of
        'depth' of volumes; numbers of 'images', of 'bytes' of their files, of 'unreadable' images,
        which are not among 'images', and of images in each of the 'classes'.
        """
        values, pixels = np.arange(256) / 255, self.values.sum(axis=1)
        mean = self.values @ values / pixels
        deviation = (values - mean[:, None]) ** 2
        std = np.sqrt((self.values * deviation).sum(axis=1) / pixels)
        return {
            "images": self.images,
            "unreadable": len(self.unreadable),
            "bytes": self.bytes,
            "mean": mean.tolist(),
            "std": std.tolist(),
            **({"depth": _extent(self.depths)} if self.depths else {}),
            "height": _extent(self.heights),
            "width": _extent(self.widths),
            "classes": {name: self.labels[i] for i, name in enumerate(class_names)},
        }


def usable(std: Sequence[float]) -> tuple[float, ...]:
    """Standard deviations to divide by, with 1 for constant channels, e.g. the alpha of opaque
    images.
    """
    return tuple(float(value) if value > _ROUNDING else 1.0 for value in std)


def histogram(pixels: np.ndarray) -> np.ndarray:
    """Histograms [C, 256] of the channels of an image [H, W, C] uint8."""
    channels = pixels.shape[2]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.array(image.histogram()).reshape(channels, 256)


def _extent(counts: Counter[int]) -> dict[str, float]:
    ordered = sorted(counts)
    ends = np.cumsum([counts[value] for value in ordered])
    middle = [ordered[np.searchsorted(ends, (ends[-1] + i) // 2)] for i in (1, 2)]
    return {"min": ordered[0], "median": sum(middle) / 2, "max": ordered[-1]}


def write_reports(
    folder: Path,
    counts: Mapping[str, Sequence[Tally]],
    class_names: Sequence[str],
    noun: str = "image",
) -> None:
    """Writes the statistics of each split, and the list of images left out.

    Args:
        folder: of the set.
        counts: split -> counts of each shard.
        class_names: names of the classes.
        noun: what an example is called in messages.

    Raises:
        UserError: no example of a split is readable.
    """
    totals = {split: Tally.total(tallies) for split, tallies in counts.items()}
    unreadable = {name: why for total in totals.values() for name, why in total.unreadable.items()}
    for split, total in totals.items():
        if not total.images:
            name, why = next(iter(total.unreadable.items()))
            raise UserError(f"no {noun} of {split} can be read; the first is {name}: {why}")
    reports = {
        "statistics.json": {split: total.summary(class_names) for split, total in totals.items()},
        "unreadable.json": dict(sorted(unreadable.items())),
    }
    for name, report in reports.items():
        (folder / name).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
