"""Windows of volumes: the values that become 0 and 255, given or found in each volume."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mae_jax.data.images import BadImage, Window, check_window
from mae_jax.data.slices import to_bytes
from mae_jax.spec import parse
from mae_jax.types import UserError

DTYPES = ("uint8", "float16")
SAMPLE = 2**22
"""Voxels looked at for percentiles, at most: those of every k-th along each axis."""
PLATEAU = 0.1
"""Share of the voxels on the faces that must have one value to make it the background."""


class Percentiles(NamedTuple):
    """A window from the percentiles of the foreground of each volume."""

    low: float
    high: float


def window_of(window: Any) -> Window | Percentiles | None:
    """Checks a window.

    Args:
        window: (low, high), 'percentiles(LOW, HIGH)' or None.

    Raises:
        UserError: it is none of these.
    """
    if not isinstance(window, str):
        check_window("volume", window)
        return window
    try:
        calls = parse(window)
    except UserError:
        calls = []
    args = calls[0].args if len(calls) == 1 and calls[0].name == "percentiles" else ()
    valid = len(args) == 2 and all(type(v) in (int, float) and math.isfinite(v) for v in args)
    if not valid or calls[0].kwargs or not 0 <= args[0] < args[1] <= 100:
        raise UserError(
            f"volume: window {window!r} should be (low, high) or 'percentiles(low, high)' with "
            "0 <= low < high <= 100, such as 'percentiles(0.5, 99.5)'"
        )
    return Percentiles(*map(float, args))


def sampled(space: Sequence[int]) -> tuple[slice, ...]:
    """The voxels that `percentiles` looks at, in a volume of shape [D, H, W]: every k-th along each
    axis from the first on, for the smallest k that leaves at most `SAMPLE`. They do not depend on
    the orientation of the file.
    """
    step = 1
    while math.prod(-(-side // step) for side in space) > SAMPLE:
        step += 1
    return (slice(None, None, step),) * 3


def plateau(border: np.ndarray) -> float | None:
    """The value that most finite voxels on the faces of a volume share, if at least `PLATEAU` of
    them do, else None.

    Args:
        border: [n], the voxels on the faces.
    """
    values, counts = np.unique(border[np.isfinite(border)], return_counts=True)
    if len(values) and counts.max() >= PLATEAU * counts.sum():
        return values[counts.argmax()]
    return None


def percentiles(values: np.ndarray, shares: Percentiles) -> Window:
    """The window of a volume.

    The background is the value that most voxels on the six faces share, if at least a tenth of them
    do: air that was set to 0 or padded. The foreground is all finite voxels of other values; all
    finite voxels if there is no such value.

    Args:
        values: [D, H, W, C], those of `sampled`.
        shares: percentiles in [0, 100].

    Raises:
        BadImage: the percentiles are equal.
    """
    faces = [values.take((0, -1), axis).ravel() for axis in range(3)]
    background = plateau(np.concatenate(faces))
    foreground = values[np.isfinite(values)]
    if background is not None:
        foreground = foreground[foreground != background]
    if not foreground.size:
        raise BadImage("all its voxels are background: there are no percentiles to window it by")
    low, high = np.percentile(foreground, shares).tolist()
    if not low < high:
        raise BadImage(
            f"its percentiles {shares.low:g} and {shares.high:g} are both {low:g}: give "
            "window=(low, high)"
        )
    return low, high


def to_levels(values: np.ndarray, window: Window | None, dtype: np.dtype) -> np.ndarray:
    """Maps values to levels from 0 to 255: whole ones (uint8), or floats between them. NaN becomes
    0, as the lower end of the window does.

    Args:
        values: any shape and type; uint8 if `window` is None, which keeps them.

    Raises:
        ValueError: values of another type need a window.
    """
    if dtype == np.uint8 or window is None:
        return to_bytes(values, window).astype(dtype, copy=False)
    low, high = window
    levels = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.nan_to_num(levels, nan=0, posinf=255), 0, 255).astype(dtype)
