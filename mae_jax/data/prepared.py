"""Mean and standard deviation of a data set's splits, as measured by `mae-jax prepare`."""

import json
import re
from pathlib import Path

from mae_jax.data.images import Window
from mae_jax.data.sources import Statistics
from mae_jax.data.statistics import usable
from mae_jax.data.tfds_sets import first_line
from mae_jax.types import UserError

STATISTICS = "statistics.json"
"""File that `mae-jax prepare` writes: split -> its `Tally.summary`."""


def statistics_of(info, split: str, channels: int, window: Window | None) -> Statistics | None:
    """Mean and standard deviation of a split, or of the full split that it is a part of.

    None if they were not measured, or not for these pixels: for another number of channels, with a
    window, or for a combination of splits.

    Args:
        info: `DatasetInfo` of a TFDS builder.
        split: split as in TFDS, e.g. 'train[:90%]'.
        channels, window: options with which images are decoded.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(info.data_dir, STATISTICS)
    splits = {part.strip() for part in re.sub(r"\[.*?\]", "", split).split("+")}
    if not path.exists() or window is not None or len(splits) > 1:
        return None
    try:
        measured = json.loads(path.read_text(encoding="utf-8")).get(splits.pop())
        if measured is None or len(measured["mean"]) != channels:
            return None
        return Statistics(tuple(map(float, measured["mean"])), usable(measured["std"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read {path} ({first_line(error)}): prepare the set again, or remove this file"
        ) from error
