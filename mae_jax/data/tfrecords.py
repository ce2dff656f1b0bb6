"""Random access to TFRecord files, through an index that is made by reading their headers.

A record is the length of its data (uint64), a checksum of that (uint32), the data, and a checksum
of it (uint32). The checksums are not looked at: what is wrong with an image shows when it is
decoded.
"""

import bisect
import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mae_jax.types import UserError

_THREADS = 16  # that read headers at once: a disk serves several sooner than one
_HEADER, _FOOTER = 12, 4  # bytes around the data


class TFRecords:
    """The records of some TFRecord files, by number; to be read by any number of threads.

    Args:
        instructions: TFDS' `FileInstruction`s: which records of which files.

    Raises:
        UserError: a file is missing, or holds another number of records than it should.
    """

    def __init__(self, instructions: Sequence):
        self.paths = [part.filename for part in instructions]
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(offsets_in, self.paths, [p.examples_in_shard for p in instructions])
            self.offsets = [
                offsets[part.skip : part.skip + part.take + 1].copy()
                for part, offsets in zip(instructions, found, strict=True)
            ]
        self.ends = list(itertools.accumulate(len(offsets) - 1 for offsets in self.offsets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> bytes:
        """The data of one record.

        Raises:
            ValueError: the file is another than when it was opened.
        """
        shard = bisect.bisect_right(self.ends, index)
        place = index - (self.ends[shard - 1] if shard else 0)
        start, end = self.offsets[shard][place : place + 2].tolist()
        with open(self.paths[shard], "rb", buffering=0) as file:  # there may be thousands of them
            record = os.pread(file.fileno(), end - start, start)
        if start + _HEADER + _length(record) + _FOOTER != end or len(record) != end - start:
            raise ValueError(f"{self.paths[shard]} has changed since it was opened")
        return record[_HEADER:-_FOOTER]


def offsets_in(path: str, count: int) -> np.ndarray:
    """Where the records of a file start, and where the last one ends: [count + 1] int64.

    Raises:
        UserError: there is no such file, or it does not hold `count` whole records.
    """
    offsets, position = np.zeros(count + 1, np.int64), 0
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for i in range(1, count + 1):
                header = os.pread(file.fileno(), 8, position)
                position = min(position + _HEADER + _length(header) + _FOOTER, size + 1)
                offsets[i] = position
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; prepare the set again") from error
    if position != size:
        raise UserError(
            f"{path} does not hold {count} records, as the set's dataset_info.json says: it was "
            "cut off or replaced; prepare the set again"
        )
    return offsets


def _length(header: bytes) -> int:
    return int.from_bytes(header[:8], "little")
