"""Volumes that `mae-jax prepare` has cropped, resampled and written to ArrayRecord files."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mae_jax.data.bricks import BrickArray, number_of
from mae_jax.data.files import existing
from mae_jax.data.images import BadImage
from mae_jax.data.prepared import STATISTICS
from mae_jax.data.record_files import check_files
from mae_jax.data.shards import ORIGIN
from mae_jax.data.slices import reason
from mae_jax.data.sources import Source, Statistics
from mae_jax.data.statistics import usable
from mae_jax.data.volume_examples import INDEX
from mae_jax.data.volume_grids import PreparedGeometry
from mae_jax.types import UserError


class Entry(NamedTuple):
    """One volume of a set."""

    name: str
    group: str
    label: int
    """-1: no class."""
    first: int
    """Number of its first record: its header. Bricks of the image follow, and of the labels."""


class VolumeRecords(Source):
    """One split of a prepared set, see `make`. Memory holds an `Entry` for each volume.

    Args:
        folder: of the set.
        index: content of its `INDEX`.
        split: name of the split.
        statistics: of the split.
    """

    def __init__(
        self, folder: Path, index: Mapping[str, Any], split: str, statistics: Mapping[str, Any]
    ):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        shards = index["splits"][split]
        paths = [str(folder / shard["file"]) for shard in shards]
        check_files(paths)
        self.records = ArrayRecordDataSource(paths)
        starts = np.cumsum([0, *(shard["records"] for shard in shards)]).tolist()
        self.entries = [
            Entry(name, group, label, start + first)
            for start, shard in zip(starts, shards)
            for name, group, label, first in shard["volumes"]
        ]
        self.num_examples, self.dtype = len(self.entries), np.dtype(index["dtype"])
        self.masks = index["segmentation"]
        self.names = {"label": tuple(index["classes"])} if index["classes"] else {}
        mean, std = statistics["mean"], statistics["std"]
        self.statistics = Statistics(tuple(map(float, mean)), usable(std))
        listing = json.dumps([split, index["dtype"], [list(entry) for entry in self.entries]])
        self.digest = hashlib.sha256(listing.encode()).hexdigest()[:16]

    def read(self, indices: np.ndarray) -> dict[str, list]:
        """'image' [D, H, W, C] and, if the set has them, 'segmentation' [D, H, W], of which a crop
        reads the bricks that it needs; and 'label' if there are classes.

        Raises:
            BadImage: a record is damaged.
        """
        entries = [self.entries[index] for index in indices]
        shapes = [self._header(entry)["shape"] for entry in entries]
        pairs = list(zip(entries, shapes))
        fields = {"image": [self._array(e, shape, self.dtype) for e, shape in pairs]}
        if self.class_names:
            fields["label"] = [entry.label for entry in entries]
        if self.masks:
            fields["segmentation"] = [self._array(e, shape[:3], np.int32) for e, shape in pairs]
        return fields

    def geometry(self, index: int) -> PreparedGeometry:
        """Spacing, crop and place of a volume in its file, for `volume_geometry.to_original`.

        Raises:
            BadImage: its record is damaged.
        """
        return PreparedGeometry.from_json(self._header(self.entries[index])["geometry"])

    def name(self, index: int) -> str:
        """Name of the volume when it was prepared."""
        return self.entries[index].name

    def labels(self) -> np.ndarray | None:
        """[N] int32, if there are classes."""
        if not self.class_names:
            return None
        return np.array([entry.label for entry in self.entries], np.int32)

    def group(self, index: int) -> str:
        """The series, of which a volume may be one echo or one time."""
        return self.entries[index].group

    def groups(self) -> np.ndarray | None:
        """[N] int32, the series of each volume; None if each is its own."""
        names = [entry.group for entry in self.entries]
        numbers = np.unique(names, return_inverse=True)[1].astype(np.int32)
        return numbers if numbers.max(initial=0) + 1 < len(names) else None

    def _header(self, entry: Entry) -> dict[str, Any]:
        try:
            return json.loads(self.records[entry.first])
        except Exception as error:  # a damaged record
            raise BadImage(f"its record: {reason(error)}") from error

    def _array(self, entry: Entry, shape: Sequence[int], dtype: np.dtype) -> BrickArray:
        start = entry.first + 1 + (number_of(shape) if len(shape) == 3 else 0)
        return BrickArray(functools.partial(self._bricks, start), shape, dtype)

    def _bricks(self, start: int, numbers: Sequence[int]) -> Sequence[bytes]:
        return self.records.__getitems__([start + number for number in numbers])


def make(path: str, *, split: str = "train") -> VolumeRecords:
    """A split of volumes that `mae-jax prepare` has written: images [D, H, W, C].

    Args:
        path: folder of the set, which holds a volumes.json.
        split: 'train', or 'test' if a share was held out.

    Raises:
        UserError: there is no such set or split, its files are damaged, or array_record is missing.
    """
    folder = existing("volume_records", path)
    if not (folder / INDEX).is_file():
        raise UserError(
            f"volume_records: {path!r} holds no {INDEX}: give the folder that mae-jax prepare has "
            "written, such as 'data/scans/1.0.0'. Prepare scans for a trained model as its "
            f"training set was: with the source, window and spacing in the set's {ORIGIN}"
        )
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        measured = json.loads((folder / STATISTICS).read_text(encoding="utf-8"))
        if split not in index["splits"]:
            raise UserError(
                f"volume_records: {path!r} has no split {split!r}: choose one of "
                f"{', '.join(sorted(index['splits']))}"
            )
        return VolumeRecords(folder, index, split, measured[split])
    except ImportError as error:
        raise UserError("volume_records needs array_record: pip install array_record") from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"volume_records: cannot read {path!r} ({reason(error)}): prepare the set again"
        ) from error
