"""Random access to TFRecord files, through an index built from the headers of their records.

A record is the length of its data (uint64), a checksum of the length (uint32), the data, and a
checksum of the data (uint32). Checksums are not verified, since decoding detects damaged images.
"""

import bisect
import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mae_jax.types import UserError

_THREADS = 16  # threads that read headers, since disks serve concurrent reads faster
_HEADER, _FOOTER = 12, 4  # bytes around the data


class TFRecords:
    """Indexed records of TFRecord files; safe to read from several threads.

    Args:
        instructions: `FileInstruction`s of TFDS: the records to use of each file.

    Raises:
        UserError: a file is missing, or has an unexpected number of records.
    """

    def __init__(self, instructions: Sequence):
        self.paths = [part.filename for part in instructions]
        with ThreadPoolExecutor(_THREADS) as pool:
            index = pool.map(offsets_in, self.paths, [p.examples_in_shard for p in instructions])
            self.offsets = [
                offsets[part.skip : part.skip + part.take + 1].copy()
                for part, offsets in zip(instructions, index, strict=True)
            ]
        self.ends = list(itertools.accumulate(len(offsets) - 1 for offsets in self.offsets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> bytes:
        """The data of one record.

        Raises:
            ValueError: the file has changed since it was opened.
        """
        shard = bisect.bisect_right(self.ends, index)
        row = index - (self.ends[shard - 1] if shard else 0)
        start, end = self.offsets[shard][row : row + 2].tolist()
        with open(self.paths[shard], "rb", buffering=0) as file:  # too many to keep all open
            record = os.pread(file.fileno(), end - start, start)
        if start + _HEADER + _length(record) + _FOOTER != end or len(record) != end - start:
            raise ValueError(f"{self.paths[shard]} has changed since it was opened")
        return record[_HEADER:-_FOOTER]


def offsets_in(path: str, count: int) -> np.ndarray:
    """Offsets [count + 1] int64 of the records in a file, and of the end of the last one.

    Raises:
        UserError: there is no such file, or it does not hold exactly `count` records.
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
