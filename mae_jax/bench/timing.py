"""Timing in interleaved turns, so that temporary load on the machine affects all works equally."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mae_jax.types import UserError

Work = Callable[[int], float]
"""Runs a computation a given number of times, waits for the last, and returns the seconds."""


def repeat(call: Callable[[], Any]) -> Work:
    """The work of calling a JAX function, which blocks once, after the last call. On a CPU it
    blocks after each call: its devices share threads, and concurrent calls that wait for each
    other's collectives could occupy all of them.
    """

    def work(times: int) -> float:
        each = jax.local_devices()[0].platform == "cpu"
        begun = time.perf_counter()
        for _ in range(times):
            result = call()
            if each:
                jax.block_until_ready(result)
        jax.block_until_ready(result)
        return time.perf_counter() - begun

    return work


def check_times(turns: int, seconds: float) -> None:
    """Raises UserError unless both numbers are positive and finite."""
    for name, value in [("turns", turns), ("seconds", seconds)]:
        if not 0 < value < math.inf:
            raise UserError(f"--{name} {value} must be above 0, and finite")


def measure(works: Mapping[str, Work], turns: int, seconds: float) -> dict[str, list[float]]:
    """Measures works: name -> seconds per call, one number for each turn.

    The result excludes the first call of each work, which compiles, the second, which determines
    the number of calls in a turn, and a first turn to warm up.

    Args:
        turns: number of measured turns.
        seconds: approximate time of a work in a turn; it runs at least once.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=len(works) * (turns + 2))
        times = {}
        for name, work in works.items():
            progress.update(task, description=f"warm up: {name}")
            work(1)
            times[name] = max(1, round(seconds / work(1)))
            progress.advance(task)
        for turn in range(turns + 1):
            for name, work in works.items():
                progress.update(task, description=f"turn {turn} of {turns}: {name}")
                taken = work(times[name]) / times[name]
                if turn:
                    found[name].append(taken)
                progress.advance(task)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """The 'median' and the quartiles 'low' and 'high'."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return dict(median=float(median), low=float(low), high=float(high))


def shown(values: Mapping[str, float], decimals: int = 1, scale: float = 1.0) -> str:
    """A spread as 'median (low to high)'."""
    median, low, high = (f"{values[k] * scale:,.{decimals}f}" for k in ("median", "low", "high"))
    return f"{median} ({low} to {high})"
