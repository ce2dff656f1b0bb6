"""Labels of training examples without their images, for the constants of objectives."""

from collections.abc import Sequence

import numpy as np

from mae_jax.data.random import permute
from mae_jax.data.sources import Source
from mae_jax.types import UserError

CHUNK = 64
"""Examples read at once, so that few encoded images are in memory."""


def columns(source: Source, count: int, fields: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """Fields of labels of a source, as it has them, [n, ...] each.

    Args:
        source: of the training examples.
        count: number of examples to read, where the source does not hold a field of all examples.
        fields: their names.
        seed: selects the examples.

    Raises:
        UserError: the source lacks a field.
    """
    known = {field: source.column(field) for field in fields}
    missing = [field for field, values in known.items() if values is None]
    if missing:
        indices = permute(np.arange(min(count, source.num_examples)), source.num_examples, seed)
        parts: dict[str, list] = {field: [] for field in missing}
        for start in range(0, len(indices), CHUNK):
            rows = source.read(indices[start : start + CHUNK])
            for field in missing:
                if field not in rows:
                    raise UserError(
                        f"the training set has no field {field!r}: use a source that has it"
                    )
                parts[field].append(np.asarray(rows[field]))
        known |= {field: np.concatenate(values) for field, values in parts.items()}
    return known
