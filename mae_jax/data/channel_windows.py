"""Windows of images whose channels have different ranges, such as spectral bands or stains."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mae_jax.data.images import Window, check_window
from mae_jax.data.volume_windows import to_levels
from mae_jax.types import UserError

Windows = Window | tuple[Window, ...] | None
"""One window for all channels, or one for each; None keeps uint8 values."""


def check_windows(where: str, window: Any, count: int | None = None) -> Windows:
    """Checks an option `window`: (low, high), or a list of one such pair for each channel.

    Args:
        where: name of the source, for messages.
        window: the option.
        count: number of channels, if it is known.

    Raises:
        UserError: it is neither, or has another number of pairs.
    """
    several = isinstance(window, Sequence) and bool(window) and isinstance(window[0], Sequence)
    if not several or isinstance(window, str):
        check_window(where, window)
        return window
    for one in window:
        check_window(where, one)
    if count is not None and len(window) != count:
        raise UserError(
            f"{where}: window has {len(window)} pairs, and there are {count} channels: give one "
            "pair (low, high), or one for each channel"
        )
    return tuple(tuple(one) for one in window)


def channel_levels(values: np.ndarray, window: Windows, dtype: np.dtype) -> np.ndarray:
    """Maps values [..., C] to levels from 0 to 255 by the windows of their channels; see
    `volume_windows.to_levels`.

    Raises:
        ValueError: values that are not uint8 need a window.
    """
    if window is None or not isinstance(window[0], Sequence):
        return to_levels(values, window, dtype)
    levels = np.empty(values.shape, dtype)
    for channel, one in enumerate(window):
        levels[..., channel] = to_levels(values[..., channel], one, dtype)
    return levels
