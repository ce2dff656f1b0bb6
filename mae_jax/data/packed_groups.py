"""Groups of the examples of a set that `mae-jax prepare` has packed, such as the images of several
captions each: a file beside those of TFDS, as reading them from the records would read the images.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mae_jax.types import UserError

GROUPS = "groups.npz"
"""File with an array for each file of records: [n] int32, the group of each of its examples."""


def write_groups(folder: Path, groups: Mapping[str, Sequence[int]]) -> None:
    """Writes `GROUPS`.

    Args:
        folder: of the set.
        groups: name of each file of records -> groups of its examples.
    """
    np.savez(folder / GROUPS, **{name: np.array(rows, np.int32) for name, rows in groups.items()})


def groups_of(info, split: str) -> np.ndarray | None:
    """[N] int32, groups of the examples of a split, the same in all splits; None: the set has none.

    Args:
        info: `DatasetInfo` of a TFDS builder.
        split: split as in TFDS, e.g. 'train[:90%]'.

    Raises:
        UserError: the file is damaged, or of another set.
    """
    path = Path(info.data_dir, GROUPS)
    if not path.exists():
        return None
    found = []
    try:
        with np.load(path) as arrays:
            for part in info.splits[split].file_instructions:
                rows = arrays[Path(part.filename).name]
                if len(rows) != part.examples_in_shard:
                    raise ValueError(f"{len(rows)} of {part.examples_in_shard} examples")
                found.append(rows[part.skip : part.skip + part.take].astype(np.int32))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"cannot read {path} ({error}): prepare the set again, or remove this file"
        ) from error
    return np.concatenate(found)
